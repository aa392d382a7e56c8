"""Files that grow: written at a place, synced from another thread, replaced while others read them."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

TRIES, WAIT_S = 50, 0.02
"""On Windows a file cannot be replaced while another program has it open; a reader of a small file takes ms."""
PAGE = 4096
"""Direct writes begin and end at a multiple of this, bytes: what every disk and file system accepts."""
SMALL = 16  # bytes; other blocks begin at such a place, as readers that map the file want
LEAST_DIRECT = 256_000
"""Blocks from which on they go to the disk directly, bytes. A direct write takes 0.1 ms and more whatever its size,
and up to a page is left empty behind it: 1.6 % of the smallest such block."""
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


class GrowingFile:
    """The file that is written, and earlier ones that wait to be synced and closed.

    Large blocks go to the disk past the page cache where the system can do that (`O_DIRECT`): it takes a third of
    the processor time, and a busy computer's page cache slows the disk down (docs/recorder.md). Blocks then begin
    at whole pages. One thread opens and writes, another may `sync`.
    """

    def __init__(self, block_bytes: int) -> None:
        """`block_bytes`: size of the blocks that will be written; large ones pass by the page cache."""
        self._lock = threading.Lock()
        self._current = self._direct = -1
        self._earlier: list[int] = []
        self._wants_direct = block_bytes >= LEAST_DIRECT and hasattr(os, "O_DIRECT")
        self._staging: mmap.mmap | None = None

    @property
    def is_direct(self) -> bool:
        """Whether blocks go past the page cache."""
        return self._direct >= 0

    def open(self, path: Path, *, goes_on: bool = False) -> None:
        """Create a file, or go on with it; the one that was written before is closed. Raises `OSError`."""
        flags = os.O_RDWR if goes_on else os.O_RDWR | os.O_CREAT | os.O_TRUNC
        file = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)
        direct = -1
        if self._wants_direct:
            with contextlib.suppress(OSError):  # a file system that has none
                direct = os.open(path, os.O_WRONLY | os.O_DIRECT)
        with self._lock:
            self._earlier.extend(old for old in (self._current, self._direct) if old >= 0)
            self._current, self._direct = file, direct

    @property
    def length(self) -> int:
        """Bytes of the file that is written. Raises `OSError`."""
        return os.fstat(self._current).st_size

    def aligned(self, place: int) -> int:
        """The first place from `place` on where a block may begin."""
        return place + -place % (PAGE if self.is_direct else SMALL)

    def write(self, parts: Sequence[Part], place: int) -> None:
        """Write a few bytes. Raises `OSError`."""
        write_at(self._current, parts, place)

    def write_block(self, parts: Sequence[Part], place: int) -> None:
        """Write a block at an aligned place; up to the next one, zeros may follow it. Raises `OSError`."""
        if self.is_direct:
            try:
                write_at(self._direct, [self._staged(parts)], place)
                return
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._wants_direct = False  # a file system that cannot do it after all
                os.close(self._direct)
                self._direct = -1
        write_at(self._current, parts, place)

    def _staged(self, parts: Sequence[Part]) -> memoryview:
        """The parts in memory that begins at a page, as direct writes need it."""
        length = sum(map(len, parts))
        padded = length + -length % PAGE
        if self._staging is None or len(self._staging) < padded:
            self._staging = mmap.mmap(-1, padded + PAGE)
        staged = np.frombuffer(self._staging, np.uint8)
        place = 0
        for part in parts:
            staged[place : place + len(part)] = np.frombuffer(part, np.uint8)
            place += len(part)
        staged[place:padded] = 0
        return memoryview(self._staging)[:padded]

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
            files, self._earlier = [*self._earlier, self._current, self._direct], []
            self._current = self._direct = -1
        for file in files:
            if file >= 0:
                os.close(file)


def _sync(file: int) -> None:
    """What is on the disk need not stay in memory, where the images of an hour would displace everything else."""
    getattr(os, "fdatasync", os.fsync)(file)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
