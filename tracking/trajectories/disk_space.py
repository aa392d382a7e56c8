"""Allocates disk space before it is needed, so that a full disk is noticed while the file is still whole.

HDF5 cannot undo a flush that fails half-way. The writer therefore allocates the bytes that a commit may need behind
the end of the file first. If that fails, nothing of the commit has been written.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tracking.trajectories.hdf5_superblock import SIGNATURE

FLAGS_AT = 11  # the byte of the flags, after signature, version and the two sizes
AHEAD_BYTES = 8 << 20
"""Space that is allocated at once, bytes: about 100,000 rows, some seconds of a run. Smaller costs a call for every
commit; larger takes more of a disk that is nearly full, and is given back at the end."""
ZEROS = bytes(1 << 20)


class DiskReserve:
    """Allocates space behind the end of a file that HDF5 has open; it writes only beyond the file's size."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        self._size = 0

    def ensure(self, end: int) -> None:
        """Allocate everything up to byte `end`, and more where there is room.

        Raises OSError (no space, quota, file size limit) if `end` itself cannot be had; what could be
        allocated stays allocated.
        """
        self._size = os.fstat(self._fd).st_size
        if self._size >= end:
            return
        with contextlib.suppress(OSError):
            self._extend(end + AHEAD_BYTES)
        if self._size < end:
            self._extend(end)

    def _extend(self, end: int) -> None:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._fd, self._size, end - self._size)
            self._size = end
            return
        os.lseek(self._fd, self._size, os.SEEK_SET)
        while self._size < end:
            self._size += os.write(self._fd, ZEROS[: end - self._size])

    def trim(self, end: int) -> None:
        """Free the space beyond byte `end`, and flush the rest to the disk."""
        if os.fstat(self._fd).st_size > end:
            os.ftruncate(self._fd, end)
        os.fsync(self._fd)

    def status(self) -> os.stat_result:
        """Status of the file that is open, which may no longer be the one at its path."""
        return os.fstat(self._fd)

    def begins_with_flags(self, flags: int) -> bool:
        """Whether the file still begins with an HDF5 superblock that has these flags."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        head = os.read(self._fd, FLAGS_AT + 1)
        return head[: len(SIGNATURE)] == SIGNATURE and bool(head[FLAGS_AT] & flags)

    def duplicate(self) -> int:
        """Another descriptor of the file, which the caller closes."""
        return os.dup(self._fd)

    def close(self) -> None:
        """Close the file. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
