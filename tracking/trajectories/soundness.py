"""Checks whether a trajectory file is whole; all commands and readers use these checks.

A file is whole if its superblock is valid and not marked as open, the file is as long as the superblock says, its
tables and attributes can be read, each row belongs to its frame, and its writer has finished it.
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
    FRAME_TYPES,
    FRAMES,
    MORE_ROWS,
    MORE_TYPES,
    PROPERTIES,
    PROPERTY,
    PROPERTY_NAMES,
    ROW,
    ROWS,
    SCHEMA,
    SCHEMA_VERSION,
    SLICE,
    SLICES,
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
"""What HDF5 and the decoding raise on a damaged file."""


def read_superblock(path: Path) -> Superblock | None:
    """The superblock of a file, None for a version that liveptv does not write.

    Raises ValueError with the reason if it is damaged or the file is shorter than it says, and OSError.
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
    """Raise `SourceError` if this is not a trajectory file that this program can read, or its header is damaged."""
    if schema_of(file) != SCHEMA:
        raise SourceError(f"{path} is not a trajectory file of liveptv")
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
    more = dataset(file, MORE_ROWS, kinds=RECORDS, ndim=1, most_bytes=None) if MORE_ROWS in file else None
    properties = (
        dataset(file, PROPERTIES, kinds=RECORDS, ndim=1, most_bytes=None) if PROPERTIES in file else None
    )
    if PROPERTY_NAMES in file:
        dataset(file, PROPERTY_NAMES, kinds="S", ndim=1)
    slices = dataset(file, SLICES, kinds=RECORDS, ndim=1, most_bytes=None) if SLICES in file else None
    if (
        rows.dtype != ROW
        or frames.dtype not in FRAME_TYPES
        or (more is not None and more.dtype not in MORE_TYPES)
        or (slices is not None and slices.dtype != SLICE)
        or (properties is not None and properties.dtype != PROPERTY)
    ):
        raise SourceError(f"{path} does not have the columns of schema version {version}")


def read_attributes(file: h5py.File) -> dict[str, Any]:
    """The attributes of the root, JSON decoded, without those that `damaged_attributes` names.

    If an attribute of the user's is damaged, HDF5's own error is raised.
    """
    return _read_attributes(file)[0]


def damaged_attributes(file: h5py.File, *, needed: bool) -> dict[str, str]:
    """What is wrong, by name, with the attributes that the rows need (`needed`), or with all others."""
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
    """`check_rest`, and raise `SourceError` if an attribute is damaged that the rows do not need."""
    check_rest(file)
    for fault in damaged_attributes(file, needed=False).values():
        raise SourceError(f"{path} is damaged: {fault}")


def check_rest(file: h5py.File) -> None:
    """Read everything but the tables: attributes, events, image and control record.

    Raises one of `UNREADABLE` if something cannot be read. The values of attributes are checked by `check_whole`.
    """
    read_attributes(file)
    for name in (ROWS, MORE_ROWS, PROPERTIES, SLICES, FRAMES):
        if name in file:
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
