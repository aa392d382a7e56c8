"""Decides during the measurement whether a slice has been measured well enough."""

from __future__ import annotations

import math

import numpy as np

from stream.messages import Tracks
from tracking.analysis.velocity import velocity_profile
from tracking.control.controllers.measuring import FloatArray, measured
from tracking.control.settings import Enough

JUDGE_S = 0.25
"""Time between two decisions, s. A slice may last that much too long; each decision computes the velocity profile
of all its trajectories."""
FEWEST_IN_A_BIN = 5
"""Trajectories from which a bin's standard error counts: the scatter of five is known to a third. Higher, slices
with few particles take longer."""
FIRST_ROOM = 1024


class Sufficiency:
    """The trajectories of one slice: how many are long enough, and the standard error of their velocity profile."""

    def __init__(self, enough: Enough) -> None:
        self._enough = enough
        self._slots: dict[int, int] = {}
        self._table = np.zeros((6, FIRST_ROOM))
        self._judged_s = self._began_s = math.nan
        self.trajectories = 0
        self.standard_error_um_s = math.nan

    def update(self, tracks: Tracks) -> bool:
        """Add a frame's tracks; True once the criteria are met, or `longest_s` has passed."""
        now_s = tracks.info.time_s
        if math.isnan(self._began_s):
            self._began_s = self._judged_s = now_s
        self._take(tracks)
        if now_s - self._judged_s < JUDGE_S:
            return False
        self._judged_s = now_s
        self._judge()
        longest_s = self._enough.longest_s
        return self.reached or (longest_s is not None and now_s - self._began_s >= longest_s)

    @property
    def reached(self) -> bool:
        """Whether all criteria were met at the last decision."""
        e = self._enough
        many = e.trajectories is None or self.trajectories >= e.trajectories
        wanted = e.standard_error_um_s
        return many and (wanted is None or self.standard_error_um_s <= wanted)

    def _take(self, tracks: Tracks) -> None:
        chosen = measured(tracks)
        axis = tracks.x_um if self._enough.axis == "x" else tracks.y_um
        number = tracks.track[chosen].astype(np.int64)
        slots = np.array([self._slot(n) for n in number.tolist()], np.int64)
        if not len(slots):
            return
        count, first_s, first_um, last_s, last_um, depth = self._table
        place_um, depth_um = axis[chosen], np.nan_to_num(tracks.z_um[chosen])
        new = count[slots] == 0
        first_s[slots[new]], first_um[slots[new]] = tracks.info.time_s, place_um[new]
        last_s[slots], last_um[slots] = tracks.info.time_s, place_um
        depth[slots] += depth_um
        count[slots] += 1

    def _slot(self, number: int) -> int:
        slot = self._slots.setdefault(number, len(self._slots))
        if slot >= self._table.shape[1]:
            self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
        return slot

    def profile(self) -> tuple[FloatArray, FloatArray]:
        """Mean depth (M,) um and velocity (M,) um/s of each trajectory that is long enough."""
        e = self._enough
        table = self._table[:, : len(self._slots)]
        count, first_s, first_um, last_s, last_um, depth = table[:, table[0] >= e.length_frames]
        depth_um, velocity_um_s = depth / count, (last_um - first_um) / (last_s - first_s)
        inside = np.ones(len(count), np.bool_)
        if e.min_depth_um is not None:
            inside &= depth_um >= e.min_depth_um
        if e.max_depth_um is not None:
            inside &= depth_um <= e.max_depth_um
        return depth_um[inside], velocity_um_s[inside]

    def _judge(self) -> None:
        depth_um, velocity_um_s = self.profile()
        self.trajectories = len(depth_um)
        self.standard_error_um_s = profile_error_um_s(depth_um, velocity_um_s, self._enough.bin_um)


def profile_error_um_s(depth_um: FloatArray, velocity_um_s: FloatArray, bin_um: float) -> float:
    """Root mean square over the profile's bins of the standard errors of their means, um/s.

    Bins are `bin_um` wide, with edges at its multiples. NaN (not known) while fewer than half of the occupied bins
    have `FEWEST_IN_A_BIN` trajectories.
    """
    if not len(depth_um):
        return math.nan
    first, last = math.floor(depth_um.min() / bin_um), math.floor(depth_um.max() / bin_um) + 1
    exact = np.full(len(depth_um), 1e-6 * float(np.abs(velocity_um_s).max()) + 1e-9)
    found = velocity_profile(depth_um, velocity_um_s, exact, bins=bin_um * np.arange(first, last + 1))
    occupied = len(np.unique(np.floor(depth_um / bin_um)))
    good = found.tracks >= FEWEST_IN_A_BIN
    if 2 * np.count_nonzero(good) < occupied:
        return math.nan
    return float(np.sqrt(np.mean(found.standard_error_um_s[good] ** 2)))
