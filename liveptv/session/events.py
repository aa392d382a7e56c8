"""The event log: one JSON object per line, written at once, so that a crash keeps all earlier lines."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from stream.errors import OutputError
from stream.safe_text import printable, shortened

DEEPEST = 20  # levels of nesting; whatever is deeper (or contains itself) becomes text
LONGEST = 500  # characters of the text that stands for an object unknown to JSON


class EventLog:
    """Appends events to a JSONL file: `{"wall_s": ..., "since_s": ..., "kind": ..., "text": ..., ...}`.

    Each event is appended with one write, so that another writer cannot split it; any thread may write. A run does
    not end because its log cannot be written: `lost` counts the missing events, and the next event that can be
    written reports them.
    """

    def __init__(self, path: Path, *, append: bool = False) -> None:
        """Start a log, or continue one (`append`). Raises `OutputError` if it cannot be written."""
        self.path = path
        self.lost = 0
        self._began_s = time.monotonic()
        self._lock = threading.Lock()
        self._torn = False
        try:
            if not append:
                path.write_bytes(b"")
            self._file: int | None = os.open(
                path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666
            )
        except OSError as error:
            raise OutputError(f"cannot write the event log {path}: {error.strerror}") from error

    def write(self, kind: str, text: str, **details: Any) -> None:
        """Write one event. Control characters are replaced; objects in `details` unknown to JSON become text."""
        with self._lock:
            if self._file is None:
                return
            if self.lost:
                missing = f"{self.lost} events before this could not be written"
                if not self._append(self._line("note", missing, {})):
                    self.lost += 1
                    return
                self.lost = 0
            if not self._append(self._line(kind, text, details)):
                self.lost += 1

    def _line(self, kind: str, text: str, details: dict[str, Any]) -> bytes:
        event = {
            "wall_s": round(time.time(), 6),
            "since_s": round(time.monotonic() - self._began_s, 6),
            "kind": kind,
            "text": printable(text),
            **details,
        }
        try:
            return msgspec.json.encode(event) + b"\n"
        except (TypeError, ValueError, OverflowError, RecursionError):
            return msgspec.json.encode(plain(event)) + b"\n"

    def _append(self, line: bytes) -> bool:
        assert self._file is not None
        data = b"\n" + line if self._torn else line
        try:
            written = os.write(self._file, data)
        except OSError:
            return False
        self._torn = written < len(data)
        return not self._torn

    def close(self) -> None:
        """Close the file; later events are ignored."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_events(path: Path) -> list[dict[str, Any]]:
    """Read an event log; lines that are incomplete after a crash or a full disk are left out."""
    events = []
    for line in path.read_bytes().split(b"\n"):
        try:
            events.append(msgspec.json.decode(line, type=dict[str, Any]))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
    return events


def plain(value: Any, depth: int = 0) -> Any:
    """The value in types that JSON knows: printable text, finite depth, other objects as text."""
    if hasattr(value, "tolist"):  # an array or a number of numpy's
        value = value.tolist()
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, str):
        return printable(str(value))
    if isinstance(value, int):
        return value if abs(value) < 2**63 else f"an integer of {value.bit_length()} bits"
    if depth < DEEPEST and isinstance(value, Mapping):
        return {printable(str(key)): plain(item, depth + 1) for key, item in value.items()}
    if depth < DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth + 1) for item in value]
    try:
        return shortened(printable(repr(value)), LONGEST)
    except Exception as error:  # noqa: BLE001 - an object of a user's controller may do anything
        return f"a {type(value).__name__} that cannot be shown ({type(error).__name__})"
