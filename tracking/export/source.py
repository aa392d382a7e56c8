"""The rows to export: read from the file in pieces, as often as a writer needs, so that memory does not grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from stream.messages import Tracks
from stream.particle_properties import property_columns
from tracking.export.by_track import ByTrack, TrackLengths, ordered
from tracking.trajectories.columns import COLUMN_NAMES, Trajectories, collect
from tracking.trajectories.reader import TrajectoryFile
from tracking.trajectories.schema import RecordArray
from tracking.trajectories.selection import Selection

VALUES = tuple(name for name in COLUMN_NAMES if name not in {"track", "frame", "time_s"})
"""The columns that an export may hold besides track, frame and time, in order."""


class Exported:
    """The rows of `file` that are exported, and what is known of them.

    `has_flags` is whether rows are among them that do not count. `seen` counts the rows read so far, `known` names
    the columns of `/tracks/more` that hold anything, `properties` those of the particles' properties.
    """

    def __init__(self, file: TrajectoryFile, *, include_predicted: bool, include_flagged: bool) -> None:
        self._selection = Selection(
            file, include_predicted=include_predicted, include_flagged=include_flagged
        )
        self.has_flags = include_predicted or include_flagged
        self.known: Sequence[str] = file.known()
        self.properties = property_columns(file.property_names, Tracks.PREFIXES)
        self.frames: RecordArray = self._selection.frames
        self.attributes: dict[str, Any] = self._selection.attributes
        self.name = file.path.name

    def pieces(self) -> Iterator[Trajectories]:
        """All rows in order of frames, in pieces."""
        return self._selection.pieces()

    def whole(self) -> Trajectories:
        """All rows at once; takes some 150 bytes of memory a row."""
        return collect(self.pieces())

    def batches(self, rows: int) -> Iterator[Trajectories]:
        """All rows in order of frames, `rows` at a time but for the last; none if there are no rows."""
        waiting: list[Trajectories] = []
        count = 0
        for piece in self.pieces():
            waiting.append(piece)
            count += len(piece)
            if count < rows:
                continue
            joined = collect(waiting)
            whole = count - count % rows
            for start in range(0, whole, rows):
                yield _part(joined, start, start + rows)
            waiting, count = [_part(joined, whole, count)], count - whole
        if count:
            yield collect(waiting)

    @cached_property
    def contents(self) -> Contents:
        """What the rows hold; reads all of them once."""
        return Contents(self.pieces())

    @cached_property
    def by_track(self) -> ByTrack:
        """The rows of each track; reads all rows once."""
        return ordered((piece.track for piece in self.pieces()), self.contents.lengths)

    @property
    def frame_interval_s(self) -> float:
        """The median time between frames; NaN if there are no times."""
        if len(self.frames) < 2:
            return float("nan")
        steps = np.diff(self.frames["time_s"]) / np.diff(self.frames["frame"].astype(np.int64))
        interval = float(np.nanmedian(steps)) if np.isfinite(steps).any() else float("nan")
        return interval if interval > 0 else float("nan")


class Contents:
    """Number of rows, rows of each track, which columns hold anything, and the range of each column's values."""

    def __init__(self, pieces: Iterator[Trajectories]) -> None:
        self.lengths = TrackLengths()
        self.some: set[str] = set()
        self.gaps: set[str] = set()
        self.range: dict[str, tuple[float, float]] = {}
        for piece in pieces:
            self.lengths.add(piece.track)
            for name in (*VALUES, "time_s", "frame"):
                self._look(name, getattr(piece, name))
            for name, values in piece.property_columns().items():
                self._look(name, values)

    def _look(self, name: str, values: Any) -> None:
        if not len(values):
            return
        finite = np.isfinite(values)
        if not finite.all():
            self.gaps.add(name)
            values = values[finite]
        if len(values):
            self.some.add(name)
            low, high = self.range.get(name, (np.inf, -np.inf))
            self.range[name] = (min(low, float(values.min())), max(high, float(values.max())))

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.lengths.rows

    @property
    def tracks(self) -> int:
        """How many tracks there are."""
        return len(self.lengths.number)

    def has(self, name: str) -> bool:
        """Whether a column holds anything; a column of flags if any is set."""
        if name in {"flags", "revised"}:
            return self.range.get(name, (0.0, 0.0))[1] > 0
        return name in self.some

    def partly(self, name: str) -> bool:
        """Whether some rows have a value in this column and others have none."""
        return name in self.some and name in self.gaps


def _part(t: Trajectories, start: int, stop: int) -> Trajectories:
    columns = {f.name: getattr(t, f.name)[start:stop] for f in fields(t) if f.name in COLUMN_NAMES}
    return replace(
        t,
        **columns,
        properties=t.properties.of(slice(start, stop)),
        detected=t.detected.of(slice(start, stop)),
    )
