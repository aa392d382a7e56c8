"""Tracks that are a second detection of another track's particle: found while tracking, flagged, never deleted.

Two neighbours in the plane are followed together. The difference of their positions is that of one particle seen
twice if it stays where it is but for the detections' errors, and that of two particles if it also wanders and
drifts: Brownian steps of both, and two velocities drawn from those at all depths there. Depth itself is not used:
a second detection may come with any. A Kalman filter for each of the two gives the likelihood of every new
difference, and their ratio is summed up until it decides (sequential test, Wald, Ann. Math. Stat. 16, 117, 1945).

The rule of Franchini & Krevor (2020, section 3.2) is the alternative: neighbours whose mean relative displacement
is less than a threshold are one particle.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tracking.candidates import OVERFLOW, CandidateWorkspace, gate_by_distance, index_points
from tracking.close_pairs import NAMES, STATES, choose, flag, follow, merge

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

PART_AT = 1.5


class SecondDetectionFinder:
    """Follows pairs of close tracks from frame to frame and flags one of each that is one particle.

    The younger track of a pair is flagged, of two of the same age the one with less confidence, for as long as
    the verdict stands. `rule` is `likelihood` or `paper`; `distance_um` how near in the plane two detections of
    one particle are; `least_um` the mean relative displacement a frame below which the paper's rule holds.
    """

    def __init__(self, rule: str, distance_um: float, least_um: float) -> None:
        self._by_displacement = rule == "paper"
        self._distance_um = distance_um
        self._least_um = least_um
        self._grid = CandidateWorkspace()
        self._allocate_rows(256)
        self._names: IntArray = np.zeros((256, NAMES), np.int64)
        self._states: FloatArray = np.zeros((256, STATES))
        self._other_names, self._other_states = self._names.copy(), self._states.copy()
        self.pairs = 0

    def _allocate_rows(self, rows: int) -> None:
        self._points: FloatArray = np.zeros((2, rows))
        self._variances: FloatArray = np.zeros((2, rows))
        self._origins: FloatArray = np.zeros((2, rows))
        self._row: npt.NDArray[np.int32] = np.zeros(rows, np.int32)
        self._searched: npt.NDArray[np.int32] = np.zeros(rows, np.int32)

    def mark(
        self,
        table: FloatArray,
        frame: int,
        time_s: float,
        frame_s: float,
        step_rate: FloatArray,
        spread: FloatArray,
        box: FloatArray,
        shape: IntArray,
    ) -> int:
        """Take in a frame's `Tracks.table` and set the flag in it; returns how many tracks have it.

        `time_s` goes on with `frame_s` a frame; `step_rate` (3,), um^2/s, is the variance of one particle's
        Brownian step a second. `spread` (cells, 2), um^2/s^2, is the variance of velocities over depth in each
        column of the grid `box`, `shape` of the flow field.
        """
        rows = table.shape[1]
        if rows > self._row.size:
            self._allocate_rows(max(rows, 2 * self._row.size))
        kept = follow(
            table, rows, self._names, self._states, self.pairs, time_s, frame_s, step_rate, spread, box, shape,
            PART_AT * self._distance_um, self._by_displacement, self._least_um,
        )  # fmt: skip
        self.pairs = self._search(table, rows, frame, time_s, kept)
        return int(flag(table, rows, self._names, self.pairs))

    def _search(self, table: FloatArray, rows: int, frame: int, time_s: float, kept: int) -> int:
        """Look for new neighbours of a part of the tracks; returns how many pairs there are then."""
        g = self._grid
        count, wanted = choose(table, rows, frame, self._points, self._row, self._origins, self._searched)
        g.reserve(wanted, count)
        index_points(self._points, self._variances, count, g.geometry, g.starts, g.order, g.cell_of, g.sorted)
        found = OVERFLOW
        while found == OVERFLOW:
            found = gate_by_distance(
                self._origins, wanted, self._distance_um**2,
                g.geometry, g.starts, g.order, g.sorted, g.indptr, g.indices, g.costs, 2,
            )  # fmt: skip
            if found == OVERFLOW:
                g.grow_candidates(2 * g.indices.size)
        if kept + found > self._names.shape[0]:
            self._grow(2 * (kept + found))
        pairs = merge(
            table, time_s, self._row, self._searched, wanted, g.indptr, g.indices,
            self._names, self._states, kept, self._other_names, self._other_states,
        )  # fmt: skip
        self._names, self._other_names = self._other_names, self._names
        self._states, self._other_states = self._other_states, self._states
        return int(pairs)

    def _grow(self, pairs: int) -> None:
        more = pairs - self._names.shape[0]
        self._names = np.pad(self._names, ((0, more), (0, 0)))
        self._states = np.pad(self._states, ((0, more), (0, 0)))
        self._other_names, self._other_states = self._names.copy(), self._states.copy()
