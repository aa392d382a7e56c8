"""Runs the parts of the GPU's benchmark, each in a process of its own, and keeps every row as it comes.

In a process of its own, because an error of CUDA's stays with the process, and a library may end it or never
return.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
ROW = "ROW "
"""Begins a line that is a row; all else that a part prints is kept for its error."""
GRACE_S = 10.0
"""s that a part may take beyond its limit, for a start that is slow the first time, before it is stopped."""
LEAST_S = 5.0
"""s that have to be left for another part to be worth a start."""
ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Part:
    """A part: what to do (of `gpu_parts.PARTS`), with what, and the s that it wants in a run of ten minutes."""

    name: str
    wants_s: float
    road: str = ""
    model: str = ""

    def named(self) -> Row:
        """As the rows have it."""
        return {"part": self.name, "road": self.road, "model": self.model}


class Record:
    """Rows, written to `path` (JSON) after each, so that a run that is killed leaves what it had."""

    def __init__(self, path: Path | None, head: Row, say: Callable[[str], None] = print) -> None:
        self.head, self._path, self._say = head, path, say
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Keep a row."""
        kept = _readable(row)
        self.rows.append(kept)
        self._say(json.dumps(kept))
        self.write()

    def write(self) -> None:
        """Write all that there is; the file is whole at any time."""
        if self._path is None:
            return
        part = self._path.with_name(f"{self._path.name}.part")
        part.write_text(json.dumps({**self.head, "rows": self.rows}, indent=1) + "\n", encoding="utf-8")
        part.replace(self._path)


def _readable(value: Any) -> Any:
    """Numbers with four digits, no NaN, plain types."""
    if isinstance(value, dict):
        return {str(name): _readable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)


class Clock:
    """Shares the time of a run among its parts: a part gets what it wants, less where too little is left."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._now = now
        self._end_s = now() + seconds

    @property
    def left_s(self) -> float:
        """s until the run has to be over."""
        return self._end_s - self._now()

    def limit_s(self, part: Part, later: Iterable[Part]) -> float:
        """s for a part, as its share of what is left."""
        wanted_s = part.wants_s + sum(one.wants_s for one in later)
        return part.wants_s * min(1.0, max(0.0, self.left_s) / wanted_s)


def run_parts(
    parts: list[Part], clock: Clock, record: Record, command: Callable[[Part, float], list[str]]
) -> None:
    """Do one part after another. One that fails, ends or hangs is a row with its error, and the next goes on."""
    for number, part in enumerate(parts):
        which = {name: value for name, value in part.named().items() if value}
        limit_s = clock.limit_s(part, parts[number + 1 :])
        if clock.left_s < LEAST_S:
            record.add(which | {"failed": f"not begun: {clock.seconds:.0f} s were not enough for all parts"})
            continue
        begun_s = time.monotonic()
        stop_s = min(1.5 * limit_s + GRACE_S, clock.left_s)
        for row in rows_of(command(part, limit_s), stop_s):
            record.add(which | row)
        record.add(which | {"took_s": time.monotonic() - begun_s, "limit_s": limit_s})


def rows_of(command: list[str], stop_s: float) -> Iterator[Row]:
    """The rows of a program as it prints them; the last says what went wrong, if anything did.

    It is stopped after `stop_s`, and stops by itself when this process is gone, as its input is closed then.
    """
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
    )

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    said: list[str] = []
    deadline_s = time.monotonic() + stop_s
    try:
        while True:
            try:
                line = lines.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                yield {"failed": f"stopped after {stop_s:.0f} s"}
                return
            if line is None:
                break
            if line.startswith(ROW):
                yield json.loads(line.removeprefix(ROW))
            elif line.strip():
                said.append(line.strip())
        status = process.wait(timeout=GRACE_S)
        if status:
            reason = " ".join(said[-3:])[-ERROR_CHARACTERS:]
            yield {"failed": f"its process ended with status {status}: {reason}"}
    except subprocess.TimeoutExpired:
        yield {"failed": "its process did not end"}
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
        reader.join(GRACE_S)
        assert process.stdout is not None
        process.stdout.close()


def tell_rows(rows: Iterable[Row]) -> None:
    """In the process of a part: print each row; an error of Python's is the last."""
    _stop_with_the_parent()
    try:
        for row in rows:
            _tell(row)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other parts are still worth having
        text = " ".join(str(error).split())[:ERROR_CHARACTERS]
        _tell({"failed": f"{type(error).__name__}: {text}"})


def _tell(row: Row) -> None:
    sys.stdout.write(f"\n{ROW}{json.dumps(_readable(row))}\n")
    sys.stdout.flush()


def _stop_with_the_parent() -> None:
    def wait() -> None:
        while os.read(0, 1):  # not through sys.stdin, whose lock a thread must not hold at the end
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def arguments_of(part: Part) -> str:
    """A part as one argument of a command line."""
    return json.dumps(asdict(part))
