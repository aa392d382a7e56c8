"""Adding to a finished trajectory file, so that a disk that is full cannot cost what is in it.

HDF5 that runs out of room while it closes a file leaves it half-written and marked as open, and may take the
process with it. As in the writer, room is therefore taken before HDF5 opens the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from stream.errors import OutputError
from tracking.trajectories.disk_space import DiskReserve
from tracking.trajectories.hdf5_superblock import SIZE, Superblock, parse
from tracking.trajectories.open_elsewhere import hdf5_says_written
from tracking.trajectories.output_place import reason
from tracking.trajectories.schema import LIBVER, Attribute, encode_attribute

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


def annotate(path: Path, attributes: Mapping[str, object]) -> None:
    """Add or replace attributes of a finished file (what only the session knows: the losses of all stages).

    Raises `OutputError` if there is no room or it cannot be opened for writing; it is as it was then.
    """
    try:
        add_attributes(path, attributes)
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(f"cannot add attributes to {path}: {reason(error)}") from error


def add_attributes(
    path: Path, attributes: Mapping[str, object], sizes: Mapping[str, int] | None = None
) -> None:
    """Add attributes, and cut off what a commit that failed has left behind these `sizes` of datasets."""
    encoded = {name: encode_attribute(value) for name, value in attributes.items()}
    with adding_to(path, sum(_size(value) for value in encoded.values())) as file:
        for name, size in (sizes or {}).items():
            if file[name].shape[0] > size:
                file[name].resize((size,))
        file.attrs.update(encoded)


def _size(value: Attribute) -> int:
    return value.nbytes if isinstance(value, np.ndarray) else len(str(value).encode())
