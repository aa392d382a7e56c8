"""Reads a trajectory file that is finished, still being written, or was left open by a writer that died.

`TrajectoryFile` gives all rows as they are stored, `read_trajectories` the rows that count, as arrays.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import h5py
import numpy as np

from stream.errors import LivePTVError, SourceError
from stream.messages import Properties
from stream.volume_info import VolumeInfo
from tracking.trajectories.columns import Trajectories, collect
from tracking.trajectories.commit_mark import committed_frames
from tracking.trajectories.hdf5_superblock import OPEN_FOR_SWMR
from tracking.trajectories.more import MoreRows, Revisions
from tracking.trajectories.open_elsewhere import who_writes
from tracking.trajectories.plausibility import nonsense_in_frames, nonsense_in_rows
from tracking.trajectories.property_rows import PropertyRows
from tracking.trajectories.relinking import AsLinked
from tracking.trajectories.schema import (
    EVENTS,
    FRAME,
    FRAMES,
    MORE,
    MORE_ROWS,
    PROPERTIES,
    PROPERTY_NAMES,
    ROWS,
    SLICES,
    RecordArray,
    decode_events,
    with_all_columns,
)
from tracking.trajectories.selection import Selection
from tracking.trajectories.slices import SliceRows, keep_slices
from tracking.trajectories.soundness import (
    UNREADABLE,
    check_schema,
    check_whole,
    damaged_attributes,
    read_attributes,
    read_superblock,
)
from tracking.trajectories.statistics import TrackCensus

log = logging.getLogger(__name__)

PIECE_ROWS = 1 << 19
"""Rows that are read at once: 42 MB of memory, and few enough calls that their number does not matter."""


class TrajectoryFile:
    """A trajectory file open for reading; `refresh` reads what a live writer has committed since."""

    def __init__(self, path: Path) -> None:
        """Raises `SourceError` if it cannot be opened or is not a trajectory file."""
        self.path = Path(path)
        if not self.path.is_file():
            raise SourceError(f"there is no file {self.path}")
        self._parts: list[RecordArray] = []
        self.row_count = 0
        self._file = _open(self.path)
        try:
            with self._readable():
                self._check()
            self.refresh()
            self._check_frames()
        except BaseException:
            self._file.close()
            raise

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn what HDF5 and the decoding raise on a damaged file into a `SourceError`."""
        try:
            yield
        except LivePTVError:
            raise
        except (MemoryError, OverflowError) as error:
            raise self._damaged("it claims to hold more than fits into memory") from error
        except UNREADABLE as error:
            raise self._damaged(error) from error

    def _check(self) -> None:
        check_schema(self._file, self.path)
        read_attributes(self._file)
        self._row_set, self._frame_set, self._event_set = (self._file[n] for n in (ROWS, FRAMES, EVENTS))
        self._more = MoreRows(self._file.get(MORE_ROWS))
        self._slices = SliceRows(self._file.get(SLICES))
        self._properties = PropertyRows(self._file.get(PROPERTIES), self._file.get(PROPERTY_NAMES))

    def _check_frames(self) -> None:
        """Raise `SourceError` if a finished file has a torn end, which is damage there."""
        if self._file.swmr_mode or not self.finished:
            return
        with self._readable():
            table = with_all_columns(self._frame_set[:])
            nonsense = nonsense_in_frames(table, len(self.frames), self._row_set.shape[0], self._slices.count)
        if nonsense:
            raise self._damaged(nonsense)

    def refresh(self) -> int:
        """Read what was committed since the last call; returns the number of new frames."""
        known = sum(map(len, self._parts))
        with self._readable():
            self._frame_set.refresh()
            new = with_all_columns(self._frame_set[known:])
            self._more.refresh()
            self._properties.refresh()
            self._slices.refresh()
            if len(new) == 0:
                return 0
            self._row_set.refresh()
            count = committed_frames(new, self._row_set.shape[0], self.row_count)
        if count:
            self._parts.append(new[:count])
            self.row_count = int(new["first_row"][count - 1] + new["rows"][count - 1])
        return count

    @property
    def frames(self) -> RecordArray:
        """The committed frames."""
        if len(self._parts) != 1:
            self._parts = [np.concatenate([np.empty(0, FRAME), *self._parts])]
        return self._parts[0]

    @property
    def uncommitted(self) -> tuple[int, int]:
        """Number of frames and rows that are in the file but not committed (a torn end after a crash)."""
        return self._frame_set.shape[0] - len(self.frames), self._row_set.shape[0] - self.row_count

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the root, JSON decoded, without those that `warn_of_damage` names."""
        with self._readable():
            return read_attributes(self._file)

    @property
    def finished(self) -> bool:
        """Whether the writer has finished the file; otherwise it is still writing, or died."""
        return "end_reason" in self._file.attrs

    @property
    def keeps_detections(self) -> bool:
        """Whether the rows hold what the tracker was given, bit for bit; files of earlier versions do not."""
        return MORE_ROWS in self._file and self._file[MORE_ROWS].dtype == MORE

    @property
    def keeps_slices(self) -> bool:
        """Whether it says of each volume how it was taken; files of earlier versions do not."""
        return keep_slices(self.frames)

    def volumes(self, frames: RecordArray) -> Iterator[VolumeInfo | None]:
        """How each of these committed `frames` was taken, slice by slice: None for images, and where not known.

        Raises `SourceError` if that cannot be read.
        """
        with self._readable():
            yield from self._slices.volumes(frames)

    def events(self) -> list[dict[str, Any]]:
        """The events of the run in order, each with `wall_s`, `kind`, `text` and further fields."""
        data = self.event_bytes()
        with self._readable():
            return decode_events(data)

    def event_bytes(self) -> bytes:
        """The raw text of the events, the torn end included."""
        with self._readable():
            self._event_set.refresh()
            return bytes(self._event_set[:])

    def rows(self, start: int, stop: int) -> RecordArray:
        """Committed rows `start` to `stop`, as stored. Raises `SourceError` if they cannot be read."""
        with self._readable():
            rows = cast("RecordArray", self._row_set[start : min(stop, self.row_count)])
        nonsense = nonsense_in_rows(rows, start, self.frames)
        if nonsense:
            raise self._damaged(nonsense)
        return rows

    def more(self, start: int, stop: int) -> RecordArray:
        """What more is known of committed rows `start` to `stop` (MORE), as stored. Raises `SourceError`."""
        with self._readable():
            return self._more.of(start, min(stop, self.row_count))

    @property
    def property_names(self) -> tuple[str, ...]:
        """What is known of particles beside place, brightness and class; each has a value and a standard error."""
        with self._readable():
            return self._properties.names()

    def properties(self, start: int, stop: int) -> tuple[Properties, Properties]:
        """Properties of the particles in committed rows `start` to `stop`, and what their own detections said.

        Raises `SourceError` if they cannot be read.
        """
        with self._readable():
            return self._properties.tables(start, min(stop, self.row_count))

    def known(self) -> list[str]:
        """The columns that only some rows have, as far as at least one of them has."""
        with self._readable():
            return self._more.known()

    def revisions(self) -> Revisions:
        """Which rows are on the wrong side of focus, as later rows say. Reads all rows if there may be any."""
        revisions = Revisions()
        start = 0
        for rows in self.pieces() if not self._more.is_empty else ():
            revisions.add(rows, self.more(start, start + len(rows)), start)
            start += len(rows)
        return revisions

    def _damaged(self, error: object) -> SourceError:
        return SourceError(
            f"{self.path} is damaged or cut short ({error}); use another copy of it if there is one"
        )

    def pieces(self, piece_rows: int = PIECE_ROWS) -> Iterator[RecordArray]:
        """All committed rows, about so many at a time, with the tracks that they are known to belong to now."""
        linked, start = AsLinked(), 0
        for stored in self.stored_pieces(piece_rows):
            yield linked.take(stored, self.more(start, start + len(stored)), start)
            start += len(stored)
        yield linked.rest()

    def stored_pieces(self, piece_rows: int = PIECE_ROWS) -> Iterator[RecordArray]:
        """All committed rows, as stored, so many at a time."""
        for start in range(0, self.row_count, piece_rows):
            yield self.rows(start, start + piece_rows)

    def check(self) -> None:
        """Read everything but the rows, which are checked wherever they are read. Raises `SourceError`."""
        with self._readable():
            check_whole(self._file, self.path)

    def warn_of_damage(self) -> None:
        """Log a warning if something is damaged that the rows can be read without."""
        try:
            if self.finished and not self._file.swmr_mode:
                self.check()
                return
            with self._readable():
                faults = damaged_attributes(self._file, needed=False)
            for fault in faults.values():
                raise SourceError(f"{self.path} is damaged: {fault}")
        except SourceError as error:
            log.warning("%s; the rows can still be read", error)

    def census(self) -> TrackCensus:
        """Read all rows once to find which tracks count."""
        census = TrackCensus()
        for rows in self.pieces():
            census.add(rows)
        return census

    def trajectories(
        self, *, include_predicted: bool = False, include_flagged: bool = False
    ) -> Iterator[Trajectories]:
        """The rows that count, `PIECE_ROWS` at a time (one piece without rows if there are none).

        See `read_trajectories` for what is left out. Depths are on the side of focus that was decided last.
        """
        yield from Selection(
            self, include_predicted=include_predicted, include_flagged=include_flagged
        ).pieces()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_trajectories(
    path: Path, *, include_predicted: bool = False, include_flagged: bool = False
) -> Trajectories:
    """Read the committed rows of a trajectory file, also while it is being written.

    Parameters
    ----------
    path
        The file.
    include_predicted
        Include rows of frames in which the particle was not detected.
    include_flagged
        Include tracks whose last measured row is flagged tentative (never confirmed) or as a second detection.

    Raises
    ------
    SourceError
        If the file cannot be read.
    """
    with TrajectoryFile(path) as file:
        return collect(
            file.trajectories(include_predicted=include_predicted, include_flagged=include_flagged)
        )


def _open(path: Path) -> h5py.File:
    """Open a file in SWMR mode if its superblock says that it is being written.

    HDF5 retries for ever to read a damaged SWMR file, so that the superblock has to be checked before.
    """
    try:
        block = read_superblock(path)
        live = block is not None and bool(block.flags & OPEN_FOR_SWMR)
        if block is not None and block.flags and not live:
            raise ValueError(_why_open(path))
        return h5py.File(path, "r", swmr=True) if live else h5py.File(path, "r", locking=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error


def _why_open(path: Path) -> str:
    """Why a file is marked as open for writing, and what to do."""
    who = who_writes(path)
    if who.startswith("still"):
        return f"it is {who}, which is about to finish it; try again"
    if who:
        return f"it is {who}; close it there"
    return "a program that has ended left it open; repair it with `liveptv recover`"
