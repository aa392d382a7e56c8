"""Finds a second place for a file that another program has removed or damaged, and copies the first file there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from stream.errors import OutputError
from stream.fallback_folder import second_places
from stream.writer_lock import WRITER, Claim
from tracking.trajectories.output_place import reason

COPY_BYTES = 32 << 20
"""Bytes copied in one step: 0.3 s on a disk of 100 MB/s, so that no message waits long."""


def take_second_place(
    path: Path, what: str, owner: str, open_there: Callable[[Path], None]
) -> tuple[Claim, Path]:
    """Claim the first place in which `open_there` can create a file; returns the claim and the place.

    `what` says what has happened to the file at `path`. Raises `OutputError` if no place can be written.
    """
    tried = []
    for place in second_places(path):
        try:
            claim = Claim(place, owner, WRITER)
        except OutputError as error:
            tried.append(str(error))
            continue
        try:
            open_there(place)
        except (OSError, RuntimeError) as error:
            claim.release()
            tried.append(f"{place}: {reason(error)}")
            continue
        return claim, place
    raise OutputError(f"{path} {what}, and no second place can be written ({'; '.join(tried)})")


class CopyingOut:
    """Copies a file that is open but was removed, some megabytes at a time, so that no message waits long."""

    def __init__(self, descriptor: int, path: Path) -> None:
        """`descriptor` is closed at the end. Raises OSError if `path` exists or cannot be created."""
        self.path = path
        self._source = descriptor
        self._at = 0
        self._target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)

    def step(self) -> bool:
        """Copy the next piece; False once all is copied and on the disk. Raises OSError."""
        os.lseek(self._source, self._at, os.SEEK_SET)
        piece = os.read(self._source, COPY_BYTES)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(self._target, rest) :]
        self._at += len(piece)
        if piece:
            return True
        os.fsync(self._target)
        self.close()
        return False

    def close(self) -> None:
        """Close both files. Idempotent."""
        for fd in (self._source, self._target):
            if fd >= 0:
                os.close(fd)
        self._source = self._target = -1
