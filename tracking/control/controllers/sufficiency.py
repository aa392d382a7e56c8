"""Decides during the measurement whether a slice has been measured well enough."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from stream.messages import Tracks
from tracking.analysis.velocity import velocity_profile
from tracking.control.controllers.measuring import FloatArray
from tracking.control.controllers.time_left import TimeLeft
from tracking.control.protocol_settings import Enough

if TYPE_CHECKING:
    from tracking.physics.live.findings import FlowFindings

JUDGE_S = 0.25
"""Time between two decisions, s. A slice may last that much too long; each decision computes the velocity profile
of all its trajectories."""
FEWEST_IN_A_BIN = 5
"""Trajectories from which a bin's standard error counts: the scatter of five is known to a third. Higher, slices
with few particles take longer."""
BETWEEN_FITS_S = 1.5
"""Time after a fit for which it says that a criterion is met by now, s: until the next one, as errors fall. Without
it a slice would last for half a second too long, and be known 5 % better than was asked where it lasts 10 s.
Longer, a slice would end also where fits do not come any more."""
FIRST_ROOM = 1024


DIFFUSION = "diffusion"
QUANTITIES = {
    "profile": "profile",
    "flow_rate": "flow_rate_ul_s",
    "wall_shear": "mean_shear_pa",
    DIFFUSION: "diffusion_um2_s",
}
"""The criteria on the fit of the flow, and what they are called in its findings."""


class Sufficiency:
    """The trajectories of one slice: how many are long enough, and the standard error of their velocity profile.

    With criteria on the flow, `flow_percent` has the standard errors of the fit; only fits of frames of the slice
    count. Between two fits an error falls as it did before. `left_s` is the time until all criteria are met,
    infinite if one never will be, NaN if it is not known.
    """

    def __init__(self, enough: Enough) -> None:
        self._enough = enough
        self._slots: dict[int, int] = {}
        self._table = np.zeros((6, FIRST_ROOM))
        self._judged_s = self._began_s = math.nan
        self.trajectories = 0
        self.standard_error_um_s = self.left_s = math.nan
        self.flow_percent = dict.fromkeys(enough.of_the_flow, math.nan)
        self._known_at_s = dict.fromkeys(enough.of_the_flow, math.inf)
        wanted = {name: enough.of_the_flow[name] for name in self.flow_percent}
        if enough.standard_error_um_s is not None:
            wanted["standard_error"] = enough.standard_error_um_s
        self._times_left = {name: TimeLeft(error) for name, error in wanted.items()}

    def flow_fitted(self, findings: FlowFindings) -> None:
        """Take a fit of the flow."""
        if math.isnan(self._began_s) or findings.time_s < self._began_s:
            return
        for name, before in self.flow_percent.items():
            self.flow_percent[name] = percent = findings.percent(QUANTITIES[name])
            left = self._times_left[name]
            if name != DIFFUSION:
                left.add(findings.from_s, findings.time_s, percent)
            elif percent != before:  # is not that of the flow, and not in every fit a new one
                left.add(self._began_s, findings.time_s, percent)
            known_s = left.known_at_s() if math.isfinite(percent) else math.inf
            self._known_at_s[name] = known_s if known_s <= findings.time_s + BETWEEN_FITS_S else math.inf

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
        profile = wanted is None or self.standard_error_um_s <= wanted
        return many and profile and all(self._judged_s >= known_s for known_s in self._known_at_s.values())

    def measured(self) -> dict[str, float]:
        """What is known so far, and the time that is left."""
        found = {"trajectories": float(self.trajectories), "standard_error_um_s": self.standard_error_um_s}
        found |= {f"{name}_percent": percent for name, percent in self.flow_percent.items()}
        return found | {"left_s": self.left_s}

    def _take(self, tracks: Tracks) -> None:
        chosen = tracks.counted
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
        if "standard_error" in self._times_left:
            self._times_left["standard_error"].add(self._began_s, self._judged_s, self.standard_error_um_s)
        left = [one.left_s() for one in self._times_left.values()]
        wanted, seconds = self._enough.trajectories, self._judged_s - self._began_s
        if wanted is not None:
            missing = max(wanted - self.trajectories, 0)
            left.append(missing * seconds / self.trajectories if self.trajectories else math.nan)
        self.left_s = max(left) if all(math.isfinite(one) or one == math.inf for one in left) else math.nan


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
