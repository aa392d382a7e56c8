"""The rows of a trajectory file that count, read piece by piece and as often as needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from stream.messages import Properties
from tracking.trajectories.columns import Trajectories, as_columns, counting
from tracking.trajectories.more import Revisions
from tracking.trajectories.more import as_columns as more_columns
from tracking.trajectories.schema import ROW, RecordArray
from tracking.trajectories.statistics import BoolArray, TrackCensus


class Rows(Protocol):
    """What is needed of a trajectory file (`reader.TrajectoryFile`)."""

    row_count: int

    @property
    def frames(self) -> RecordArray: ...  # noqa: D102

    @property
    def attributes(self) -> dict[str, Any]: ...  # noqa: D102

    def warn_of_damage(self) -> None: ...  # noqa: D102

    def census(self) -> TrackCensus: ...  # noqa: D102

    def revisions(self) -> Revisions: ...  # noqa: D102

    def more(self, start: int, stop: int) -> RecordArray: ...  # noqa: D102

    def properties(self, start: int, stop: int) -> tuple[Properties, Properties]: ...  # noqa: D102

    def pieces(self) -> Iterator[RecordArray]: ...  # noqa: D102


class Selection:
    """The rows of a file that count; which ones, and on which side of focus, is found out once.

    See `reader.read_trajectories` for `include_predicted` and `include_flagged`.
    """

    def __init__(self, file: Rows, *, include_predicted: bool = False, include_flagged: bool = False) -> None:
        file.warn_of_damage()
        self._file = file
        self._predicted = include_predicted
        self._counted: BoolArray | None = None if include_flagged else file.census().counted()
        self._revisions = file.revisions()
        self.frames, self.attributes = file.frames, file.attributes

    def pieces(self) -> Iterator[Trajectories]:
        """The rows in order of frames, some at a time (one piece without rows if there are none)."""
        start = 0
        for stored in self._file.pieces() if self._file.row_count else [np.empty(0, ROW)]:
            more = more_columns(self._file.more(start, start + len(stored)), len(stored), start)
            tables = self._file.properties(start, start + len(stored))
            start += len(stored)
            rows = self._revisions.apply(stored, more)
            kept = counting(rows, self._counted, self._predicted)
            some = {name: values[kept] for name, values in more.items()}
            mean, detected = (properties.of(kept) for properties in tables)
            whole = as_columns(rows[kept], some, self.frames, self.attributes)
            yield replace(whole, properties=mean, detected=detected)
