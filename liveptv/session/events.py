"""The event log: one JSON object a line, flushed at once, so that a crash leaves every line before it."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import msgspec

from stream.errors import OutputError
from stream.text import json_bytes


class EventLog:
    """Appends events to a JSONL file: `{"wall_s": ..., "since_s": ..., "kind": ..., "text": ..., ...}`."""

    def __init__(self, path: Path, *, append: bool = False) -> None:
        """Begin a log, or go on with one (`append`). Raises `OutputError` if it cannot be written."""
        self.path = path
        self._began_s = time.monotonic()
        try:
            self._file: TextIO | None = path.open("a" if append else "w", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write the event log {path}: {error.strerror}") from error

    def write(self, kind: str, text: str, **details: Any) -> None:
        """Write one event; `details` must be JSON-able."""
        if self._file is None:
            return
        event = {
            "wall_s": round(time.time(), 6),
            "since_s": round(time.monotonic() - self._began_s, 6),
            "kind": kind,
            "text": text,
            **details,
        }
        self._file.write(json_bytes(event).decode() + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; later events are ignored."""
        if self._file is not None:
            self._file.close()
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
    """Read an event log; a last line torn by a crash is left out."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(msgspec.json.decode(line))
        except msgspec.DecodeError:
            break
    return events
