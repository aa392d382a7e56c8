"""Files that grow: written at a place, synced from another thread, replaced while others read them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

TRIES, WAIT_S = 50, 0.02
"""On Windows a file cannot be replaced while another program has it open; a reader of a small file takes ms."""
Part = bytes | memoryview


def replace_file(path: Path, data: bytes) -> None:
    """Replace a small file, so that a reader finds the old or the new one. Raises `OSError`."""
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.write_bytes(data)
        for attempt in range(TRIES):
            try:
                beside.replace(path)
                return
            except PermissionError:
                if os.name != "nt" or attempt == TRIES - 1:
                    raise
                time.sleep(WAIT_S)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def write_at(file: int, parts: Sequence[Part], offset: int) -> None:
    """Write all parts one behind the other from `offset` on. Raises `OSError`."""
    if not hasattr(os, "pwritev"):
        os.lseek(file, offset, os.SEEK_SET)
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(file, rest) :]
        return
    left = [memoryview(part) for part in parts if len(part)]
    while left:
        written = os.pwritev(file, left, offset)
        offset += written
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


class Descriptors:
    """The file that is written, and earlier ones that wait to be synced and closed.

    One thread opens and writes, another may `sync`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current = -1
        self._earlier: list[int] = []

    @property
    def current(self) -> int:
        """The file descriptor that is written."""
        return self._current

    def open(self, path: Path) -> None:
        """Create a file, which replaces the one that was written. Raises `OSError`."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
        with self._lock:
            if self._current >= 0:
                self._earlier.append(self._current)
            self._current = file

    def sync(self) -> None:
        """Wait for the disk, and give the memory that held what it has now free. Raises `OSError`."""
        with self._lock:
            earlier, self._earlier = self._earlier, []
            current = os.dup(self._current) if self._current >= 0 else -1
        files = [*earlier, current] if current >= 0 else earlier
        failure: OSError | None = None
        for file in files:
            try:
                _sync(file)
            except OSError as error:
                failure = failure or error
            finally:
                os.close(file)
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Close all files. Idempotent."""
        with self._lock:
            files, self._earlier = [*self._earlier, self._current], []
            self._current = -1
        for file in files:
            if file >= 0:
                os.close(file)


def _sync(file: int) -> None:
    """What is on the disk need not stay in memory, where the images of an hour would displace everything else."""
    getattr(os, "fdatasync", os.fsync)(file)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
