"""Which trajectories of a file count: the last measured row of a track decides for the whole track.

A track that was never confirmed is noise, and one that ended up as the double of another is not a second
particle. Early rows of a track confirmed later do count; once confirmed it is never tentative again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream.messages import TrackFlag
from tracking.trajectory_schema import RecordArray

BoolArray = npt.NDArray[np.bool_]

NEVER_MEASURED = int(TrackFlag.TENTATIVE)


class TrackCensus:
    """Fed with all rows of a file in order (ROW); knows each track's length and verdict."""

    def __init__(self) -> None:
        self._verdict = np.empty(0, np.uint8)
        self._length = np.empty(0, np.uint32)
        self._seen = 0
        self.rows = 0
        self.predicted_rows = 0

    def add(self, rows: RecordArray) -> None:
        """Count some more rows."""
        self.rows += len(rows)
        if len(rows) == 0:
            return
        measured = (rows["flags"] & TrackFlag.PREDICTED) == 0
        self.predicted_rows += len(rows) - int(np.count_nonzero(measured))
        self._grow(int(rows["track"].max()) + 1)
        track = rows["track"][measured].astype(np.intp)
        self._verdict[track] = rows["flags"][measured]
        np.add.at(self._length, track, np.uint32(1))  # numpy's fast path needs these very types

    def _grow(self, tracks: int) -> None:
        self._seen = max(self._seen, tracks)
        room = len(self._verdict)
        if tracks > room:
            more = max(tracks, 2 * room) - room
            self._verdict = np.append(self._verdict, np.full(more, NEVER_MEASURED, np.uint8))
            self._length = np.append(self._length, np.zeros(more, np.uint32))

    def counted(self) -> BoolArray:
        """Whether each track, by its number, counts: confirmed and not a duplicate."""
        out = TrackFlag.TENTATIVE | TrackFlag.DUPLICATE
        counted: BoolArray = (self._verdict[: self._seen] & np.uint8(out)) == 0
        return counted

    def statistics(self) -> dict[str, float]:
        """Totals; `median_length` is over the tracks that count, in measured rows (0 without any)."""
        length = self._length[: self._seen]
        verdict = self._verdict[: self._seen][length > 0]
        counted = self.counted()
        lengths = length[counted]
        return {
            "rows": self.rows,
            "predicted_rows": self.predicted_rows,
            "tracks": len(verdict),
            "tracks_counted": len(lengths),
            "tracks_never_confirmed": _count(verdict, TrackFlag.TENTATIVE),
            "tracks_duplicate": _count(verdict, TrackFlag.DUPLICATE),
            "median_length": float(np.median(lengths)) if lengths.size else 0.0,
        }


def _count(verdict: npt.NDArray[np.uint8], flag: TrackFlag) -> int:
    return int(np.count_nonzero(verdict & np.uint8(flag)))
