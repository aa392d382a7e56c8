"""Drift of the focus during a run, as free particles show it: by the flow, by stuck particles, by a common jump.

The velocity profile stands still in the channel, so a focus that has risen by d shows, at measured height z, the
velocity that was at z + d when the run began. With the profile V(z, y) of the first seconds, a polynomial,

    v = (1 + s) V + d dV/dz                                                                               (1)

is fitted to the latest velocities; s takes up a change of the flow rate. Particles may sink or diffuse. Without a
flow that changes over depth, (1) says nothing. Then particles stuck to a wall show the drift, which all share; a
jump of all particles at once is the focus's in any case. A slow drift in a fluid at rest, with nothing stuck, looks
like sinking and cannot be told from it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stream.evidence import is_sure
from stream.messages import TrackFlag, Tracks
from tracking.analysis.robust import SIGMA_OF_MAD

FloatArray = npt.NDArray[np.float64]

PERIOD_S = 1.0
"""Time between the frames whose velocities are taken; the filter averages over about as long."""
LEAST_SETS, MOST_SETS = 6, 40
"""Sets of velocities in the reference, and lately; more where particles are few."""
FLAT = [(k, 0) for k in range(3)]
FULL = [(k, a) for k in range(5) for a in range(3)]
"""Powers of depth and of y in the profile: a channel's parabola; with side walls, where tracks are enough."""
TOLERATED_UM = 1.0
"""Drift that is tolerated: a third of what the issue asks to be told, about the error of one depth."""
YOUNGEST_FRAMES = 8
FEWEST, FEWEST_TRACKS, MANY_TRACKS = 60, 30, 120
"""Velocities and tracks, in the reference and lately, from which a profile is fitted; and one with side walls."""
OUTLIER, WORST_CONDITION = 5.0, 1e12
STUCK_S, STUCK_FEWEST, STUCK_ENDS = 3.0, 3, 5
"""A stuck particle has been still for so long; so many make a drift, each from means of first and last depths."""
STILL_SIGMAS, MOVING_TIMES = 3.0, 10.0
JUMP_FEWEST = 8


class FocusCheck:
    """Takes the tracks of each frame; each kind of evidence is told once."""

    def __init__(self) -> None:
        self._first: list[FloatArray] = []
        self._latest: deque[FloatArray] = deque(maxlen=MOST_SETS)
        self._due_s = -math.inf
        self._before: Tracks | None = None
        self._stuck: dict[int, list[tuple[float, float, float, float]]] = {}
        self._looks = 0
        self._told = False
        self._flow = math.nan
        self.drift_um = math.nan
        self.error_um = math.inf

    def look(self, tracks: Tracks) -> list[str]:
        """Take the tracks of a frame; returns what is to be told."""
        info = tracks.info
        told = self._jump(tracks)
        self._before = tracks
        if info.time_s < self._due_s:
            return told
        self._due_s = info.time_s + PERIOD_S
        if math.isfinite(info.flow_ul_s) and info.flow_ul_s != self._flow:
            self._flow = info.flow_ul_s
            self._first, self._due_s = (
                [],
                info.time_s + 2 * PERIOD_S,
            )  # the flow was set anew: another profile
            self._latest.clear()
        self._looks += 1
        return told + self._by_flow(tracks) + self._by_stuck(tracks)

    def _tell(self, drift_um: float, error_um: float, how: str) -> list[str]:
        if self._told:
            return []
        self._told = True
        way = "risen" if drift_um > 0 else "sunk"
        return [
            f"the focus has {way} by {abs(drift_um):.1f} +- {error_um:.1f} um without a command ({how}): the "
            "temperature drifts, or the drive slips; depths are off by as much, refocus, or hold the focus"
        ]

    def _by_flow(self, tracks: Tracks) -> list[str]:
        rows = _velocities(tracks)
        if not self._is_full(self._first):
            self._first.append(rows)
            return []
        self._latest.append(rows)
        while len(self._latest) > LEAST_SETS and self._is_full(list(self._latest)[1:]):
            self._latest.popleft()
        if len(self._latest) < LEAST_SETS // 2:
            return []
        found = shift_of(np.concatenate(self._first), np.concatenate(self._latest))
        if found is None:
            return []
        self.drift_um, self.error_um = found
        if is_sure(self.drift_um, self.error_um, TOLERATED_UM, self._looks, 3):
            return self._tell(self.drift_um, self.error_um, "the velocity profile has moved in depth")
        return []

    @staticmethod
    def _is_full(sets: Sequence[FloatArray]) -> bool:
        if len(sets) < LEAST_SETS:
            return False
        rows = np.concatenate(sets)
        return len(sets) >= MOST_SETS or (len(rows) >= FEWEST and np.unique(rows[:, 5]).size >= FEWEST_TRACKS)

    def _by_stuck(self, tracks: Tracks) -> list[str]:
        time_s = tracks.info.time_s
        speed = np.hypot(tracks.vx_um_s, tracks.vy_um_s)
        error = np.hypot(tracks.sigma_vx_um_s, tracks.sigma_vy_um_s)
        good = _good(tracks)
        if good.sum() < JUMP_FEWEST:
            return []
        moving = float(np.median(speed[good]))
        still = good & (speed < STILL_SIGMAS * error) & (speed * MOVING_TIMES < moving)
        height = _height(tracks)
        now = {
            int(tracks.track[k]): (time_s, float(height[k]), float(tracks.x_um[k]), float(tracks.y_um[k]))
            for k in np.flatnonzero(still)
        }
        self._stuck = {name: [*self._stuck.get(name, []), at] for name, at in now.items()}
        moved = []
        for seen in self._stuck.values():
            ends = np.array(seen)
            if len(seen) < 2 * STUCK_ENDS or ends[-1, 0] - ends[0, 0] < STUCK_S:
                continue
            moved.append(float(ends[:STUCK_ENDS, 1].mean() - ends[-STUCK_ENDS:, 1].mean()))
        if len(moved) < STUCK_FEWEST:
            return []
        # few particles: their scatter is known to a half at least
        error_um = 1.5 * float(np.std(moved, ddof=1)) / math.sqrt(len(moved))
        drift_um = float(np.mean(moved))
        if not math.isfinite(self.drift_um) or error_um < self.error_um:
            self.drift_um, self.error_um = drift_um, error_um
        if is_sure(drift_um, error_um, TOLERATED_UM, self._looks, 3):
            return self._tell(drift_um, error_um, f"{len(moved)} stuck particles have moved alike")
        return []

    def _jump(self, tracks: Tracks) -> list[str]:
        before = self._before
        if before is None or tracks.info.frame != before.info.frame + 1:
            return []
        name, now, then = np.intersect1d(
            tracks.track[_good(tracks)], before.track[_good(before)], return_indices=True
        )
        if name.size < JUMP_FEWEST:
            return []
        step = _height(before)[_good(before)][then] - _height(tracks)[_good(tracks)][now]
        middle = float(np.median(step))
        error = 1.2533 * SIGMA_OF_MAD * float(np.median(np.abs(step - middle))) / math.sqrt(step.size)
        if is_sure(middle, max(error, 1e-6), TOLERATED_UM, max(int(tracks.info.frame), 1), 1):
            return self._tell(middle, error, f"all particles jumped in frame {tracks.info.frame}")
        return []

    def facts(self) -> dict[str, float]:
        """Gauges: the drift since the run began, um, where it is known to 2 um."""
        if not self.error_um < 2.0:
            return {}
        return {"check_focus_drift_um": self.drift_um, "check_focus_drift_error_um": self.error_um}


def _good(tracks: Tracks) -> npt.NDArray[np.bool_]:
    flags = tracks.flags.astype(np.int64)
    left = TrackFlag.SECOND_DETECTION | TrackFlag.TENTATIVE  # velocities do not need the fit
    good: npt.NDArray[np.bool_] = (tracks.detection >= 0) & (flags & left == 0) & np.isfinite(tracks.z_um)
    return good


def _height(tracks: Tracks) -> FloatArray:
    focus_um = tracks.info.focus_um
    return tracks.z_um + (focus_um if math.isfinite(focus_um) else 0.0)


def _velocities(tracks: Tracks) -> FloatArray:
    """Height, y, vx, vy, their standard error and the track (N, 6), of tracks followed for some frames."""
    good = _good(tracks) & (tracks.age_frames >= YOUNGEST_FRAMES)
    error = np.hypot(tracks.sigma_vx_um_s, tracks.sigma_vy_um_s) / math.sqrt(2)
    rows = np.column_stack(
        [_height(tracks), tracks.y_um, tracks.vx_um_s, tracks.vy_um_s, error, tracks.track]
    )[good]
    return rows[np.isfinite(rows).all(axis=1) & (rows[:, 4] > 0)]


def shift_of(first: FloatArray, latest: FloatArray) -> tuple[float, float] | None:
    """d of (1) and its standard error, um, from rows of `_velocities`; None where they do not say it.

    Profile, s and d are fitted to both at once, linear around the profile of `first`; rows of one track count as
    one for the errors (Liang & Zeger 1986, Biometrika 73, 13).
    """
    tracks = min(np.unique(part[:, 5]).size for part in (first, latest))
    if tracks < FEWEST_TRACKS or len(first) < FEWEST or len(latest) < FEWEST:
        return None
    powers = FULL if tracks >= MANY_TRACKS else FLAT
    low, high = np.quantile(first[:, :2], [0.01, 0.99], axis=0)
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-9)
    rows = np.concatenate([first, latest])
    late = np.repeat([0.0, 1.0], [len(first), len(latest)])
    inside = (np.abs(rows[:, :2] - middle) <= half).all(axis=1)
    rows, late = rows[inside], late[inside]
    z, y = ((rows[:, :2] - middle) / half).T
    values = np.column_stack([z**k * y**a for k, a in powers])
    slopes = np.column_stack([k * z ** max(k - 1, 0) * y**a / half[0] for k, a in powers])
    weight = 1 / np.hypot(rows[:, 4], np.median(rows[:, 4]))[:, None]
    early = late == 0
    profile, *_ = np.linalg.lstsq((values * weight)[early], (rows[:, 2:4] * weight)[early], rcond=None)
    terms = len(powers)
    design = np.zeros((2, len(rows), 2 * terms + 2))
    for axis in (0, 1):
        design[axis, :, axis * terms : (axis + 1) * terms] = values
        design[axis, :, -2] = late * (values @ profile[:, axis])
        design[axis, :, -1] = late * (slopes @ profile[:, axis])
    left = (rows[:, 2:4] * weight).T.ravel()
    matrix = (design * weight).reshape(-1, 2 * terms + 2)
    scale = np.sqrt((matrix**2).sum(axis=0))
    if not (scale > 1e-9 * scale.max()).all():
        return None
    matrix /= scale
    name = np.tile(rows[:, 5], 2)
    kept = np.ones(left.size, np.bool_)
    for _ in range(2):
        found = np.linalg.lstsq(matrix[kept], left[kept], rcond=None)[0]
        rest = left - matrix @ found
        kept = np.abs(rest) < OUTLIER * SIGMA_OF_MAD * np.median(np.abs(rest)) + 1e-12
    information = matrix[kept].T @ matrix[kept]
    if not np.linalg.cond(information) < WORST_CONDITION:
        return None
    inverse = np.linalg.inv(information)
    _, group = np.unique(name[kept], return_inverse=True)
    influence = matrix[kept] @ inverse[-1] * rest[kept]
    variance = (np.bincount(group, influence) ** 2).sum() * tracks / max(tracks - terms, 1)
    return float(found[-1] / scale[-1]), float(math.sqrt(variance) / scale[-1])
