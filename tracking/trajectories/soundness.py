"""What makes a trajectory file whole: the one judgement that all commands and readers share.

A file is whole if its superblock is valid and says that nobody has it open, it is as long as the superblock says,
its tables and attributes can be read, each row belongs to its frame, and its writer has come to its end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stream.errors import SourceError
from stream.hdf5_checks import RECORDS, check_attributes
from stream.hdf5_reading import attribute, dataset, schema_of
from tracking.trajectories.attribute_types import number, positive, whole
from tracking.trajectories.control_record import control_in
from tracking.trajectories.hdf5_superblock import SIGNATURE, SIZE, VERSIONS, Superblock, parse
from tracking.trajectories.schema import (
    ATTRIBUTES,
    EVENTS,
    FRAME,
    FRAMES,
    ROW,
    ROWS,
    SCHEMA,
    SCHEMA_VERSION,
    decode_attribute,
    decode_events,
)
from tracking.trajectories.snapshot import GROUP as SNAPSHOT
from tracking.trajectories.snapshot import snapshot_in

NUMBERS = (number, positive, whole)
VERSION_BYTES = (b"", *(bytes([version]) for version in VERSIONS))
EXTRAS = ("snapshot", "control")
UNREADABLE = (
    OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError, OverflowError,
)  # fmt: skip
"""What HDF5 and the decoding raise on a file whose middle is damaged."""


def read_superblock(path: Path) -> Superblock | None:
    """The superblock of a file, None for one of another version, which liveptv never wrote.

    Raises ValueError, saying why, if it is damaged or the file is shorter than it says, and OSError.
    """
    with path.open("rb") as file:
        head = file.read(SIZE)
    if head[: len(SIGNATURE)] == SIGNATURE and head[len(SIGNATURE) :][:1] not in VERSION_BYTES:
        return None
    block, size = parse(head), path.stat().st_size
    if size < block.end_of_file:
        raise ValueError(f"it is cut short: {size} of {block.end_of_file} bytes")
    return block


def check_schema(file: h5py.File, path: Path) -> None:
    """Raise `SourceError` if a file is no trajectory file that this program reads, or claims what cannot be."""
    if schema_of(file) != SCHEMA:
        raise SourceError(f"{path} is no trajectory file of liveptv")
    check_attributes(file)
    for fault in damaged_attributes(file, needed=True).values():
        raise SourceError(f"{path} is damaged: {fault}")
    version = int(attribute(file, "schema_version", int))
    if version > SCHEMA_VERSION:
        raise SourceError(
            f"{path} has schema version {version}, newer than this program's {SCHEMA_VERSION}; update liveptv"
        )
    rows = dataset(file, ROWS, kinds=RECORDS, ndim=1, most_bytes=None)
    frames = dataset(file, FRAMES, kinds=RECORDS, ndim=1)
    dataset(file, EVENTS, kinds="u", ndim=1)
    if rows.dtype != ROW or frames.dtype != FRAME:
        raise SourceError(f"{path} has other columns than schema version {version} says")


def read_attributes(file: h5py.File) -> dict[str, Any]:
    """The attributes of the root, JSON decoded, without those that `damaged_attributes` names.

    What HDF5 raises if one that is not ours is damaged is left to the caller.
    """
    return _read_attributes(file)[0]


def damaged_attributes(file: h5py.File, *, needed: bool) -> dict[str, str]:
    """What is wrong, by name, with the attributes that are needed to understand the rows, or with all others."""
    faults = _read_attributes(file)[1]
    return {name: fault for name, fault in faults.items() if ATTRIBUTES[name].needed == needed}


def _read_attributes(file: h5py.File) -> tuple[dict[str, Any], dict[str, str]]:
    found: dict[str, Any] = {}
    faults = {name: f"the attribute {name} is missing" for name, spec in ATTRIBUTES.items() if spec.always}
    for name in file.attrs:
        if name not in ATTRIBUTES:
            found[name] = decode_attribute(file.attrs[name])
            continue
        faults.pop(name, None)
        try:
            found[name] = ATTRIBUTES[name].read(_stored(file, name))
        except UNREADABLE:
            faults[name] = f"the attribute {name} cannot be read"
    return found, faults


def _stored(file: h5py.File, name: str) -> Any:
    value = attribute(file, name)
    single = isinstance(value, np.ndarray) and value.size == 1 and ATTRIBUTES[name].read in NUMBERS
    return value.reshape(()).item() if single else value  # as MATLAB writes every number


def check_whole(file: h5py.File, path: Path) -> None:
    """Raise `SourceError` if an attribute that only tells of the run is damaged, else as `check_rest`."""
    check_rest(file)
    for fault in damaged_attributes(file, needed=False).values():
        raise SourceError(f"{path} is damaged: {fault}")


def check_rest(file: h5py.File) -> None:
    """Read what is not read with the tables: attributes, events, picture and record of control.

    Raises one of `UNREADABLE` if something cannot be read. Attributes are only looked at by `check_whole`.
    """
    read_attributes(file)
    for name in (ROWS, FRAMES):
        dict(file[name].attrs)
    decode_events(bytes(file[EVENTS][:]))
    for name in EXTRAS:
        if name in file:
            file[name].visititems(_read)
    try:
        if SNAPSHOT in file:
            snapshot_in(file)
        control_in(file)
    except SourceError as error:
        raise ValueError(str(error)) from error


def _read(_name: str, item: h5py.Group | h5py.Dataset) -> None:
    dict(item.attrs)
    if isinstance(item, h5py.Dataset):
        item[()]
