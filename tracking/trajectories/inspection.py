"""Reads what is in a trajectory file whose writer was killed, without changing a byte of it.

HDF5 refuses such a file, because its superblock says that it is open. It is therefore read through a view of the
file in which only the superblock differs.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stream.errors import LivePTVError, SourceError
from stream.hdf5_checks import known_as
from tracking.trajectories.commit_mark import committed_frames
from tracking.trajectories.hdf5_superblock import SIZE, Superblock, build, parse
from tracking.trajectories.more import MoreRows
from tracking.trajectories.plausibility import nonsense_in_frames, nonsense_in_rows
from tracking.trajectories.property_rows import PropertyRows
from tracking.trajectories.reader import PIECE_ROWS
from tracking.trajectories.relinking import AsLinked
from tracking.trajectories.schema import (
    EVENTS,
    FRAMES,
    MORE_ROWS,
    PROPERTIES,
    PROPERTY_NAMES,
    ROWS,
    SLICES,
    complete_event_bytes,
    decode_attribute,
    file_statistics,
    with_all_columns,
)
from tracking.trajectories.slices import named_slices
from tracking.trajectories.soundness import (
    UNREADABLE,
    check_rest,
    check_schema,
    damaged_attributes,
    read_attributes,
    read_superblock,
)
from tracking.trajectories.statistics import TrackCensus


@dataclass(frozen=True, slots=True)
class Contents:
    """What is committed in a file, and what is not.

    `frames`, `rows`, `more` and `properties` (entries about rows), `slices` and `event_bytes` are committed, `torn`
    is how much of frames, rows and events lies behind that. `host` is the computer that wrote the file.
    `unreadable` says whether events, image or record of control are damaged; `spoilt_attributes` are the damaged
    attributes that rows can be read without.
    """

    frames: int
    rows: int
    more: int
    properties: int
    slices: int
    event_bytes: int
    last_frame: int
    torn: tuple[int, int, int]
    statistics: dict[str, float]
    finished: bool
    host: str
    unreadable: bool
    spoilt_attributes: tuple[str, ...]


def superblock_of(path: Path) -> Superblock | None:
    """The superblock of a file, None for a version that liveptv does not write. Raises `SourceError`."""
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            head = file.read(SIZE)
        try:
            return parse(head)
        except ValueError:
            if read_superblock(path) is None:
                return None
            raise
    except ValueError as error:
        raise SourceError(f"cannot recover {path}: {error}") from error
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error


def run_of(path: Path) -> str:
    """The `run_id` of a trajectory file, closed or not; "" if it cannot be read."""
    try:
        block = superblock_of(path)
        if block is None:
            return ""
        head = build(replace(block, flags=0, end_of_file=path.stat().st_size))
        with path.open("rb", buffering=0) as raw, h5py.File(_WithSuperblock(raw, head), "r") as file:
            return str(decode_attribute(file.attrs.get("run_id", "")))
    except UNREADABLE:
        return ""


def inspect_file(path: Path, superblock: bytes, closed: bool) -> Contents:
    """Read the file as if it had this superblock; `closed` says whether its writer has closed it.

    Raises `SourceError` if it is damaged where the rows cannot be read without.
    """
    try:
        with (
            known_as(path),
            path.open("rb", buffering=0) as raw,
            h5py.File(_WithSuperblock(raw, superblock), "r") as file,
        ):
            check_schema(file, path)
            return _contents(file, path, closed)
    except LivePTVError:
        raise
    except UNREADABLE as error:
        raise SourceError(f"{path} is damaged ({error}); the file is unchanged") from error


def _contents(file: h5py.File, path: Path, closed: bool) -> Contents:
    table, stored_rows = with_all_columns(file[FRAMES][:]), file[ROWS].shape[0]
    stored_slices = file[SLICES].shape[0] if SLICES in file else 0
    events = bytes(file[EVENTS][:])
    count = committed_frames(table, stored_rows)
    finished = closed and "end_reason" in file.attrs
    nonsense = nonsense_in_frames(table, count, stored_rows, stored_slices) if finished else ""
    if nonsense:
        raise ValueError(nonsense)
    frames = table[:count]
    rows = int(frames["rows"].sum(dtype=np.int64))
    event_bytes = complete_event_bytes(events)
    census, linked, more = TrackCensus(), AsLinked(), MoreRows(file.get(MORE_ROWS))
    for start in range(0, rows, PIECE_ROWS):
        piece = file[ROWS][start : min(start + PIECE_ROWS, rows)]
        nonsense = nonsense_in_rows(piece, start, frames)
        if nonsense:
            raise ValueError(nonsense)
        census.add(linked.take(piece, more.of(start, start + len(piece)), start))
    census.add(linked.rest())
    writer = read_attributes(file).get("writer", {})
    try:
        check_rest(file)
        unreadable = False
    except UNREADABLE:
        unreadable = True
    faults = damaged_attributes(file, needed=False)
    for fault in faults.values() if finished else ():
        raise SourceError(f"{path} is damaged: {fault}; the file is unchanged")
    return Contents(
        frames=count,
        rows=rows,
        more=more.count(rows),
        properties=PropertyRows(file.get(PROPERTIES), file.get(PROPERTY_NAMES)).count(rows),
        slices=named_slices(frames),
        event_bytes=event_bytes,
        last_frame=int(frames["frame"][-1]) if count else -1,
        torn=(len(table) - count, stored_rows - rows, len(events) - event_bytes),
        statistics=census.statistics() | file_statistics(frames),
        finished="end_reason" in file.attrs,
        host=str(writer.get("host", "")) if isinstance(writer, dict) else "",
        unreadable=unreadable,
        spoilt_attributes=tuple(name for name in faults if name in file.attrs),
    )


class _WithSuperblock(io.RawIOBase):
    """A file whose first bytes read as `head`."""

    def __init__(self, raw: io.RawIOBase, head: bytes) -> None:
        super().__init__()
        self._raw = raw
        self._head = head

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def readinto(self, buffer: Any) -> int:
        start = self._raw.tell()
        count = self._raw.readinto(buffer) or 0
        if start < len(self._head):
            stop = min(len(self._head), start + count)
            memoryview(buffer).cast("B")[: stop - start] = self._head[start:stop]
        return count
