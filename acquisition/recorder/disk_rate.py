"""How fast a disk takes images: measured past the page cache, which takes everything at first."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

BLOCK_BYTES = 8_000_000 // mmap.PAGESIZE * mmap.PAGESIZE
"""Written at once, bytes: some images. Smaller ones measure the time of the calls."""
SECONDS = 0.5
"""Length of the measurement, s: a disk of 100 MB/s writes 6 blocks. The cache inside a disk (a solid-state disk may
take GBs faster than it can go on) is not seen in so short a time; that shows in the run."""
MOST_PART_OF_FREE = 0.1  # of the free space that the measurement may use for its moment


@dataclass(frozen=True, slots=True)
class DiskRate:
    """Bytes per second that a folder's disk took, 0 where nothing could be measured, and `how` it was measured."""

    bytes_per_s: float
    how: str


def measure_disk(folder: Path, seconds: float = SECONDS) -> DiskRate:
    """Write random bytes to a file of no name for a moment; nothing is left of it, also after a crash."""
    path = folder / f".disk-rate-{os.getpid()}.tmp"
    try:
        most = int(shutil.disk_usage(folder).free * MOST_PART_OF_FREE) // BLOCK_BYTES
        if most < 1:
            return DiskRate(0.0, "the disk has too little room to measure it")
        file, direct = _open(path)
        try:
            return _measure(file, seconds, most, direct)
        finally:
            os.close(file)
            with contextlib.suppress(OSError):
                path.unlink()
    except OSError as error:
        return DiskRate(0.0, f"not measured ({error.strerror or error})")


def _open(path: Path) -> tuple[int, bool]:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    direct = getattr(os, "O_DIRECT", 0)
    try:
        file = os.open(path, flags | direct, 0o600)
    except OSError:
        if not direct:
            raise
        with contextlib.suppress(OSError):
            path.unlink()
        file, direct = os.open(path, flags, 0o600), 0
    if os.name != "nt":
        path.unlink()
    return file, bool(direct)


def _measure(file: int, seconds: float, most: int, direct: bool) -> DiskRate:
    with mmap.mmap(-1, BLOCK_BYTES) as block:  # begins at a page, as O_DIRECT needs
        block.write(os.urandom(BLOCK_BYTES))
        began_s = time.perf_counter()
        count, lasted_s = 0, 0.0
        while count == 0 or (count < most and lasted_s < seconds):
            try:
                os.write(file, block)
            except OSError:
                if count or not direct:
                    raise
                return DiskRate(0.0, "not measured (the file system takes no direct writes)")
            if not direct:
                getattr(os, "fdatasync", os.fsync)(file)
            count += 1
            lasted_s = time.perf_counter() - began_s
        if direct:
            os.fsync(file)
        rate = count * BLOCK_BYTES / (time.perf_counter() - began_s)
    return DiskRate(rate, "direct writes" if direct else "each write synced")
