"""Adds to a finished trajectory file without the risk that a full disk damages it.

If HDF5 runs out of room while it closes a file, the file stays half-written and marked as open, and the process may
crash. As in the writer, disk space is therefore allocated before HDF5 opens the file.
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
"""Space for what HDF5 adds to the values: headers of datasets and groups, some kB each. Larger only fails
earlier."""


@contextmanager
def adding_to(path: Path, nbytes: int) -> Iterator[h5py.File]:
    """Open a finished file to add up to `nbytes` of values; afterwards they are on the disk.

    Raises OSError if there is no room for them or the file cannot be opened, and ValueError if it is not a file of
    liveptv, is not finished, or is open for writing in another program; it is unchanged then.
    """
    block = _superblock(path)
    if hdf5_says_written(path):
        raise ValueError("it is open for writing in another program; close it there")
    if block.flags:
        raise ValueError("it is still being written, or was left open; end the run, or use `liveptv recover`")
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
    """Add or replace attributes of a finished file, such as the session's account of all pipeline stages.

    Raises `OutputError` if there is no room or the file cannot be opened for writing; it is unchanged then.
    """
    try:
        add_attributes(path, attributes)
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(f"cannot add attributes to {path}: {reason(error)}") from error


def add_attributes(
    path: Path, attributes: Mapping[str, object], sizes: Mapping[str, int] | None = None
) -> None:
    """Add attributes, and cut the datasets to `sizes`, because a failed commit may have left rows behind them."""
    encoded = {name: encode_attribute(value) for name, value in attributes.items()}
    with adding_to(path, sum(_size(value) for value in encoded.values())) as file:
        for name, size in (sizes or {}).items():
            if file[name].shape[0] > size:
                file[name].resize((size,))
        file.attrs.update(encoded)


def _size(value: Attribute) -> int:
    return value.nbytes if isinstance(value, np.ndarray) else len(str(value).encode())
