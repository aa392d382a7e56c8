"""Repairs a trajectory file in place: superblock, torn end, damaged parts; a note in it says what was done."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import h5py

from stream.errors import OutputError
from tracking.trajectories.annotation import adding_to
from tracking.trajectories.hdf5_superblock import SIZE, parse
from tracking.trajectories.inspection import Contents
from tracking.trajectories.schema import EVENTS, FRAMES, MORE_ROWS, PROPERTIES, ROWS, SLICES, encode_attribute
from tracking.trajectories.soundness import EXTRAS

END_REASON = "the writer was lost; recovered"


def repair(path: Path, old: bytes, repaired: bytes, contents: Contents, note: Mapping[str, object]) -> None:
    """Write the `repaired` superblock, cut off what is not committed, and store `note` as attribute `recovered`.

    `old` is the superblock as it was; it is written back if the repair fails. Raises `OutputError` then.
    """
    try:
        _write_superblock(path, repaired)
        try:
            with adding_to(path, 0) as file:
                _cut(file, contents)
                _note(file, contents, note)
        except BaseException:
            if parse(repaired) != parse(old) and _head(path) == repaired:
                _write_superblock(path, old)
            raise
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else error
        raise OutputError(f"cannot repair {path}: {reason}; check permission and disk space") from error


def _cut(file: h5py.File, contents: Contents) -> None:
    """Remove damaged parts that the rows can be read without, and the torn ends of the tables."""
    if contents.unreadable:
        for name in EXTRAS:  # an image or a record that was being added when the program died
            file.pop(name, None)
    for name in contents.spoilt_attributes:
        del file.attrs[name]
    sizes = {
        ROWS: contents.rows,
        MORE_ROWS: contents.more,
        PROPERTIES: contents.properties,
        SLICES: contents.slices,
        FRAMES: contents.frames,
        EVENTS: contents.event_bytes,
    }
    for name, size in sizes.items():
        if name in file and file[name].shape[0] > size:
            file[name].resize((size,))


def _note(file: h5py.File, contents: Contents, note: Mapping[str, object]) -> None:
    done = {**note, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    if contents.spoilt_attributes:
        done["removed_attributes"] = list(contents.spoilt_attributes)
    added: dict[str, object] = {"recovered": done, "statistics": contents.statistics}
    if "end_reason" not in file.attrs:
        added["end_reason"] = END_REASON
    for name, value in added.items():
        file.attrs[name] = encode_attribute(value)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SIZE)


def _write_superblock(path: Path, data: bytes) -> None:
    with path.open("rb+", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())
