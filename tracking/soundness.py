"""What makes a trajectory file whole: the one judgement that all commands and readers share.

A file is whole if its superblock is valid and says that nobody has it open, it is as long as the superblock says,
its tables and attributes can be read, each row belongs to its frame, and its writer has come to its end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from tracking.superblock import SIGNATURE, SIZE, VERSIONS, Superblock, parse
from tracking.trajectory_schema import (
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


def check_schema(file: h5py.File) -> str:
    """Why an HDF5 file is no trajectory file that this program reads, "" if it is one."""
    if file.attrs.get("schema") != SCHEMA:
        return "is no trajectory file of liveptv"
    version = int(file.attrs["schema_version"])
    if version > SCHEMA_VERSION:
        return f"has schema version {version}, newer than this program's {SCHEMA_VERSION}; update liveptv"
    if file[ROWS].dtype != ROW or file[FRAMES].dtype != FRAME:
        return f"has other columns than schema version {version} says"
    return ""


def read_attributes(file: h5py.File) -> dict[str, Any]:
    """All attributes of the root, JSON decoded; what HDF5 raises if one is damaged is left to the caller."""
    return {name: decode_attribute(value) for name, value in file.attrs.items()}


def check_rest(file: h5py.File) -> None:
    """Read what is not read with the tables: attributes, events, picture and record of control.

    Raises one of `UNREADABLE` if something cannot be read.
    """
    read_attributes(file)
    for name in (ROWS, FRAMES):
        dict(file[name].attrs)
    decode_events(bytes(file[EVENTS][:]))
    for name in EXTRAS:
        if name in file:
            file[name].visititems(_read)


def _read(_name: str, item: h5py.Group | h5py.Dataset) -> None:
    dict(item.attrs)
    if isinstance(item, h5py.Dataset):
        item[()]
