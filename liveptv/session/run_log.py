"""The event log of a run: locked while it is written; replaces an older log only once the run has a frame."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from liveptv.session.events import EventLog
from stream.errors import LivePTVError, OutputError
from stream.fallback_folder import second_places
from stream.writer_lock import Claim

LOOK_S = 1.0  # s between two checks that the log is still in its place
TOLD = {"moved"}  # kinds of events that the user is told at once
LOSSES = {"lost", "kill"}  # kinds that mean the loss of a stage


class RunLog(EventLog):
    """The event log at `path`, or beside it under another name until `settle`.

    `newest` holds the facts of the newest event of each kind, `lost_stages` the stages that events say were lost.
    """

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        """`tell` gets lines for the user. Raises `OutputError` if the log is locked or cannot be written."""
        self.newest: dict[str, dict[str, Any]] = {}
        self.lost_stages: set[str] = set()
        self._tell = tell
        self._final = path
        self._claim = Claim(path, "event log")
        self._reader = -1
        self._seen_bytes = 0
        self._looked_s = time.monotonic()
        try:
            keeps_older = path.exists() and not left_by_a_run_that_did_not_start(path)
            super().__init__(path.with_name(f"{path.stem}.new{path.suffix}") if keeps_older else path)
            self._watch()
        except LivePTVError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise OutputError(f"cannot write the event log {path}: {error.strerror}") from error

    def write(self, kind: str, text: str, **details: Any) -> None:
        """Write one event; `details` must be JSON-able."""
        self.newest[kind] = details
        if kind in LOSSES and "stage" in details:
            self.lost_stages.add(str(details["stage"]))
        super().write(kind, text, **details)
        if kind in TOLD:
            self._tell(text)

    def settle(self) -> None:
        """Replace the older log, because the run has a frame. Idempotent; a failure is told to the user."""
        if self.path == self._final:
            return
        self._stop_watching()
        super().close()
        try:
            self.path.replace(self._final)
        except OSError as error:
            self._tell(f"cannot replace {self._final} ({error.strerror}); the event log is {self.path}")
            self._final = self.path
        self._go_on_at(self._final)

    def look_after(self) -> None:
        """Once a second: if the log was moved or deleted, continue in a new file with all that was in it."""
        if self._reader < 0 or time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        ours = os.fstat(self._reader)
        try:
            there = os.path.samestat(self.path.stat(), ours)
        except OSError:
            there = False
        if there and ours.st_size >= self._seen_bytes:
            self._seen_bytes = ours.st_size
            return
        if there:
            self._seen_bytes = ours.st_size
            self.write("note", f"{self.path} was cut short by another program")
            return
        self._move()

    def _move(self) -> None:
        os.lseek(self._reader, 0, os.SEEK_SET)
        kept = b"".join(iter(lambda: os.read(self._reader, 1 << 20), b""))
        lost = self.path
        for place in second_places(lost):
            with contextlib.suppress(OSError):
                place.write_bytes(kept)
                self._stop_watching()
                super().close()
                self._final = place
                self._go_on_at(place)
                text = f"{lost} was moved or deleted; the event log continues in {place}"
                self.write("note", text)
                self._tell(text)
                return
        self._stop_watching()
        self._tell(f"{lost} was moved or deleted, and no other place can be written; later events are lost")

    def _go_on_at(self, path: Path) -> None:
        began_s = self._began_s
        try:
            super().__init__(path, append=True)
        except OutputError as error:
            self._tell(str(error))
            return
        self._began_s = began_s
        self._watch()

    def _watch(self) -> None:
        self._reader = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._seen_bytes = os.fstat(self._reader).st_size

    def _stop_watching(self) -> None:
        reader, self._reader = self._reader, -1
        if reader >= 0:
            os.close(reader)

    def close(self) -> None:
        """Close the file and release the lock; later events are ignored."""
        self._stop_watching()
        if hasattr(self, "_file"):
            super().close()
        self._claim.release()


def left_by_a_run_that_did_not_start(path: Path) -> bool:
    """Whether this is an event log of ours without a trajectory file, so that it may be replaced."""
    try:
        with path.open("rb") as file:
            ours = b'"kind":"start"' in file.readline()
    except OSError:
        return False
    tracks = [path.with_name(name) for name in _trajectory_files(path.name)]
    return ours and not any(file.exists() for file in tracks)


def _trajectory_files(events: str) -> tuple[str, ...]:
    stem = events.removesuffix("events.jsonl").removesuffix(".")
    return (f"{stem}.h5", f"{stem}.hdf5") if stem else ("tracks.h5",)
