"""Decides which trajectories of a file count, and sums up their statistics.

The last measured row of a track decides for the whole track. A track that was never confirmed is noise, and one
whose last row is flagged as a second detection is not another particle. The early, tentative rows of a track that
was confirmed later do count.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream.messages import TrackFlag
from tracking.trajectories.schema import RecordArray

BoolArray = npt.NDArray[np.bool_]

NEVER_MEASURED = int(TrackFlag.TENTATIVE)
SIGMAS = ("sigma_x_um", "sigma_y_um", "sigma_z_um")


class TrackCensus:
    """Length and last flags of each track; `add` all rows of a file (ROW) in order."""

    def __init__(self) -> None:
        self._verdict = np.empty(0, np.uint8)
        self._length = np.empty(0, np.uint32)
        self._seen = 0
        self._sigma_square = np.zeros(len(SIGMAS))
        self._sigmas = np.zeros(len(SIGMAS), np.int64)
        self.rows = 0
        self.predicted_rows = 0

    def add(self, rows: RecordArray) -> None:
        """Add rows."""
        self.rows += len(rows)
        if len(rows) == 0:
            return
        measured = (rows["flags"] & TrackFlag.PREDICTED) == 0
        self.predicted_rows += len(rows) - int(np.count_nonzero(measured))
        self._grow(int(rows["track"].max()) + 1)
        track = rows["track"][measured].astype(np.intp)
        self._verdict[track] = rows["flags"][measured]
        np.add.at(self._length, track, np.uint32(1))  # numpy's fast path needs these very types
        for axis, name in enumerate(SIGMAS):
            sigma = rows[name][measured]
            sigma = sigma[np.isfinite(sigma)]
            with np.errstate(over="ignore"):  # damaged rows may hold any number
                self._sigma_square[axis] += np.sum(sigma * sigma, dtype=np.float64)
            self._sigmas[axis] += sigma.size

    def _grow(self, tracks: int) -> None:
        self._seen = max(self._seen, tracks)
        room = len(self._verdict)
        if tracks > room:
            more = max(tracks, 2 * room) - room
            self._verdict = np.append(self._verdict, np.full(more, NEVER_MEASURED, np.uint8))
            self._length = np.append(self._length, np.zeros(more, np.uint32))

    def counted(self) -> BoolArray:
        """Whether each track, by its number, counts: confirmed and not a second detection."""
        out = TrackFlag.TENTATIVE | TrackFlag.SECOND_DETECTION
        counted: BoolArray = (self._verdict[: self._seen] & np.uint8(out)) == 0
        return counted

    def statistics(self) -> dict[str, float]:
        """Totals; `median_length` is over the tracks that count, in measured rows (0 without any).

        `rms_sigma_x_um` and so on are the root mean squares of the detections' standard errors, if they have any.
        """
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
            "tracks_duplicate": _count(verdict, TrackFlag.SECOND_DETECTION),
            "median_length": float(np.median(lengths)) if lengths.size else 0.0,
        } | {
            f"rms_{name}": float(np.sqrt(square / count))
            for name, square, count in zip(SIGMAS, self._sigma_square, self._sigmas, strict=True)
            if count
        }


def _count(verdict: npt.NDArray[np.uint8], flag: TrackFlag) -> int:
    return int(np.count_nonzero(verdict & np.uint8(flag)))
