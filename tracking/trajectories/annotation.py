"""Adding to a finished trajectory file, so that a disk that is full cannot cost what is in it.

HDF5 that runs out of room while it closes a file leaves it half-written and marked as open, and may take the
process with it. As in the writer, room is therefore taken before HDF5 opens the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from tracking.trajectories.disk_space import DiskReserve
from tracking.trajectories.hdf5_superblock import SIZE, Superblock, parse
from tracking.trajectories.open_elsewhere import hdf5_says_written
from tracking.trajectories.schema import LIBVER

MARGIN_BYTES = 1 << 20


@contextmanager
def adding_to(path: Path, nbytes: int) -> Iterator[h5py.File]:
    """Open a finished file to add up to `nbytes` of values; afterwards they are on the disk.

    Raises OSError if there is no room for them or the file cannot be opened, and ValueError if it is none that
    liveptv writes, is not finished, or is open for writing in another program; it is as it was then.
    """
    block = _superblock(path)
    if hdf5_says_written(path):
        raise ValueError("it is open for writing in another program; close it there")
    if block.flags:
        raise ValueError("it is still being written, or was left open (`liveptv recover`)")
    reserve = DiskReserve(path)
    try:
        reserve.ensure(block.end_of_file + nbytes + MARGIN_BYTES)
        with h5py.File(path, "r+", libver=LIBVER, locking=False) as file:
            yield file
    finally:
        block = _superblock(path)
        if not block.flags:
            reserve.trim(block.end_of_file)
        reserve.close()


def _superblock(path: Path) -> Superblock:
    with path.open("rb") as file:
        return parse(file.read(SIZE))
