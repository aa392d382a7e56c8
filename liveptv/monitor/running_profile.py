"""The velocity profile during a run: a straight line fitted to each track, averaged in bins of height."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from liveptv.reports.profile import BINS, MIN_LENGTH
from stream.messages import Tracks
from tracking.analysis.velocity import VelocityProfile, velocity_profile

MOST_TRACKS = (
    20_000  # kept at a time, 1 MB; with 200 particles that cross the image in 10 s, about 15 minutes
)
# Relative change of the pump's set-point at which averaging starts again: above the corrections that `hold_flow`
# makes once it has settled, below a change that a person makes. A change below it moves the profile by as much.
FLOW_CHANGE = 0.05

SUMS = ("count", "t", "tt", "x", "tx", "height")


class RunningProfile:
    """Adds up tracks frame by frame; `profile` averages their velocities along x.

    Averaging starts again, at `since_s`, when the pump's set-point changes by more than 5 %. Beyond 20,000 tracks
    the oldest are dropped. Heights are absolute, refraction factor times (focus + z); without depth they are y.
    """

    def __init__(
        self, refraction_factor: float = 1.0, edges_um: npt.NDArray[np.float64] | None = None
    ) -> None:
        self._factor = refraction_factor
        self._edges_um = edges_um
        self.flow_ul_s = float("nan")
        self.over = "height"
        self._begin(0.0)

    def _begin(self, time_s: float) -> None:
        self.since_s = time_s
        self._slots: dict[int, int] = {}
        self._sums = np.zeros((len(SUMS), MOST_TRACKS))
        self._used = 0
        self._owner = np.full(MOST_TRACKS, -1, np.int64)

    def update(self, tracks: Tracks) -> None:
        """Add one frame's tracks; predicted ones, tentative ones and second detections are left out."""
        info = tracks.info
        if not np.isclose(info.flow_ul_s, self.flow_ul_s, rtol=FLOW_CHANGE, atol=0, equal_nan=True):
            self.flow_ul_s = info.flow_ul_s
            self._begin(info.time_s)
        chosen = tracks.counted
        if not chosen.any():
            return
        z_um = tracks.z_um[chosen]
        deep = bool(np.isfinite(z_um).any())
        self.over = "height" if deep else "y"
        focus_um = info.focus_um if np.isfinite(info.focus_um) else 0.0
        height = self._factor * (focus_um + z_um) if deep else tracks.y_um[chosen]
        slots = np.array([self._slot(int(name)) for name in tracks.track[chosen]])
        known = np.isfinite(height)
        time_s, x_um = info.time_s - self.since_s, tracks.x_um[chosen]
        one = np.ones(slots.size)
        rows = np.stack([one, one * time_s, one * time_s**2, x_um, time_s * x_um, height])
        self._sums[:, slots[known]] += rows[:, known]

    def _slot(self, name: int) -> int:
        slot = self._slots.get(name)
        if slot is None:
            slot = self._used % MOST_TRACKS
            self._used += 1
            self._slots.pop(int(self._owner[slot]), None)
            self._owner[slot] = name
            self._sums[:, slot] = 0.0
            self._slots[name] = slot
        return slot

    def velocities(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean height, um, and velocity, um/s, of each track with at least ten detections."""
        count, t, tt, x, tx, height = self._sums[:, self._sums[0] >= MIN_LENGTH]
        spread = tt - t * t / np.maximum(count, 1)
        moving = spread > 0
        slope = (tx - t * x / np.maximum(count, 1))[moving] / spread[moving]
        return (height / np.maximum(count, 1))[moving], slope

    def profile(self) -> VelocityProfile:
        """The mean velocity and its standard error in bins of height."""
        height_um, velocity_um_s = self.velocities()
        bins = BINS if self._edges_um is None or self.over == "y" else self._edges_um
        return velocity_profile(height_um, velocity_um_s, None, bins)
