"""Finds second detections of one particle while tracking, and flags their tracks; none is deleted.

Two neighbours in the plane are followed together. If they are one particle detected twice, the difference of
their positions is constant within the detections' errors. If they are two particles, it also wanders and
drifts: both take Brownian steps, and their velocities are two of those found at all depths there. Depth itself
is not used, since a second detection may have any. A Kalman filter for each of the two cases gives the
likelihood of every new difference; the log-likelihood ratio is summed up until it decides (sequential test: A.
Wald, Ann. Math. Stat. 16, 117, 1945).

The rule of Franchini & Krevor (2020, section 3.2) is the alternative: neighbours whose mean relative displacement
is less than a threshold are one particle. The kernels are in `tracking.second_detections.close_pairs`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tracking.candidates import OVERFLOW, CandidateWorkspace, gate_by_distance, index_points
from tracking.second_detections.close_pairs import NAMES, STATES, Motion, Test, choose, flag, follow, merge

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

PART_AT = 1.5
"""A pair ends at so many search distances: more than 1, so that errors at the edge do not end and start it
again."""


class SecondDetectionFinder:
    """Follows pairs of close tracks from frame to frame and flags one of each pair that is one particle.

    The younger track of a pair is flagged, of two of the same age the one with less confidence, for as long as
    the test says so. `rule` is `likelihood` or `paper`; `distance_um` how near in the plane two detections of
    one particle are; `least_um` the mean relative displacement a frame below which the paper's rule holds.
    """

    def __init__(self, rule: str, distance_um: float, least_um: float) -> None:
        self._test = tuple(Test(PART_AT * distance_um, rule == "paper", least_um))
        self._distance_um = distance_um
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

    def mark(self, table: FloatArray, frame: int, motion: Motion) -> int:
        """Take a frame's `Tracks.table` and set the flag in it; returns how many tracks have it.

        `motion.time_s` increases by `motion.frame_s` a frame.
        """
        rows = table.shape[1]
        if rows > self._row.size:
            self._allocate_rows(max(rows, 2 * self._row.size))
        pairs = (self._names, self._states, self.pairs)
        kept = follow(table, rows, pairs, tuple(motion), self._test)
        self.pairs = self._search(table, frame, motion.time_s, kept)
        return int(flag(table, rows, self._names, self.pairs))

    def _search(self, table: FloatArray, frame: int, time_s: float, kept: int) -> int:
        """Look for new neighbours of a part of the tracks; returns how many pairs there are then."""
        g, rows = self._grid, table.shape[1]
        count, wanted = choose(table, rows, frame, self._points, self._row, self._origins, self._searched)
        g.reserve(wanted, count)
        index_points(self._points, self._variances, count, tuple(g.grid))
        found, limit = OVERFLOW, self._distance_um**2
        while found == OVERFLOW:
            found = gate_by_distance(self._origins, wanted, limit, tuple(g.grid), tuple(g.found), 2)
            if found == OVERFLOW:
                g.grow_candidates()
        if kept + found > self._names.shape[0]:
            self._grow(2 * (kept + found))
        neighbours = (self._row, self._searched, wanted, g.found.indptr, g.found.indices)
        known, merged = (self._names, self._states, kept), (self._other_names, self._other_states, 0)
        pairs = merge(table, time_s, neighbours, known, merged)
        self._names, self._other_names = self._other_names, self._names
        self._states, self._other_states = self._other_states, self._states
        return int(pairs)

    def _grow(self, pairs: int) -> None:
        more = pairs - self._names.shape[0]
        self._names = np.pad(self._names, ((0, more), (0, 0)))
        self._states = np.pad(self._states, ((0, more), (0, 0)))
        self._other_names, self._other_states = self._names.copy(), self._states.copy()
