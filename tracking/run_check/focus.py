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

import numpy as np
import numpy.typing as npt

from stream.evidence import is_sure
from stream.messages import TrackFlag, Tracks

FloatArray = npt.NDArray[np.float64]

PERIOD_S = 1.0
"""Time between the frames whose velocities are taken; the filter averages over about as long."""
FIRST_SETS, LATEST_SETS = 6, 6
DEGREE = 4
"""Of the profile over depth: a channel's parabola, and what its side walls and slip of depths add."""
ACROSS = 2
TOLERATED_UM = 1.0
"""Drift that is tolerated: a third of what the issue asks to be told, about the error of one depth."""
YOUNGEST_FRAMES = 8
FEWEST = 60
"""Velocities from which a profile of 15 terms is fitted."""
STUCK_S, STUCK_FEWEST, STUCK_ENDS = 3.0, 3, 5
"""A stuck particle has been still for so long; so many make a drift, each from means of first and last depths."""
STILL_SIGMAS, MOVING_TIMES = 3.0, 10.0
JUMP_FEWEST = 8


class FocusCheck:
    """Takes the tracks of each frame; each kind of evidence is told once."""

    def __init__(self) -> None:
        self._first: list[FloatArray] = []
        self._latest: deque[FloatArray] = deque(maxlen=LATEST_SETS)
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
        if len(self._first) < FIRST_SETS:
            self._first.append(rows)
            return []
        self._latest.append(rows)
        if len(self._latest) < LATEST_SETS // 2:
            return []
        found = shift_of(np.concatenate(self._first), np.concatenate(self._latest))
        if found is None:
            return []
        # the same particles may be in all sets: as if they were
        again = math.sqrt(2.0 * len(self._latest))
        self.drift_um, self.error_um = found[0], again * found[1]
        if is_sure(self.drift_um, self.error_um, TOLERATED_UM, self._looks, 3):
            return self._tell(self.drift_um, self.error_um, "the velocity profile has moved in depth")
        return []

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
        error = 1.2533 * 1.4826 * float(np.median(np.abs(step - middle))) / math.sqrt(step.size)
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
    left = TrackFlag.SECOND_DETECTION | TrackFlag.REDUCED | TrackFlag.TENTATIVE
    good: npt.NDArray[np.bool_] = (tracks.detection >= 0) & (flags & left == 0) & np.isfinite(tracks.z_um)
    return good


def _height(tracks: Tracks) -> FloatArray:
    focus_um = tracks.info.focus_um
    return tracks.z_um + (focus_um if math.isfinite(focus_um) else 0.0)


def _velocities(tracks: Tracks) -> FloatArray:
    """Height, y, vx, vy and their standard error (N, 5) of tracks that have been followed for some frames."""
    good = _good(tracks) & (tracks.age_frames >= YOUNGEST_FRAMES)
    error = np.hypot(tracks.sigma_vx_um_s, tracks.sigma_vy_um_s) / math.sqrt(2)
    rows = np.column_stack([_height(tracks), tracks.y_um, tracks.vx_um_s, tracks.vy_um_s, error])[good]
    return rows[np.isfinite(rows).all(axis=1) & (rows[:, 4] > 0)]


def shift_of(first: FloatArray, latest: FloatArray) -> tuple[float, float] | None:
    """d of (1) and its standard error, um, from rows of `_velocities`; None where they do not say it."""
    if len(first) < FEWEST or len(latest) < FEWEST // 2:
        return None
    low, high = np.quantile(first[:, :2], [0.01, 0.99], axis=0)
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-9)

    def basis(rows: FloatArray, slope: bool) -> FloatArray:
        z, y = ((rows[:, :2] - middle) / half).T
        powers = [k * z ** max(k - 1, 0) / half[0] if slope else z**k for k in range(DEGREE + 1)]
        return np.column_stack([p * y**a for p in powers for a in range(ACROSS + 1)])

    seen = first[(np.abs(first[:, :2] - middle) <= half).all(axis=1)]
    now = latest[(np.abs(latest[:, :2] - middle) <= half).all(axis=1)]
    if len(seen) < FEWEST or len(now) < FEWEST // 2:
        return None
    root = 1 / np.hypot(seen[:, 4], np.median(seen[:, 4]))
    profile, *_ = np.linalg.lstsq(
        basis(seen, False) * root[:, None], seen[:, 2:4] * root[:, None], rcond=None
    )
    weight = 1 / np.hypot(now[:, 4], np.median(now[:, 4]))
    flow, slope = basis(now, False) @ profile, basis(now, True) @ profile
    off = (now[:, 2:4] - flow) * weight[:, None]
    design = np.column_stack([(slope * weight[:, None]).ravel(), (flow * weight[:, None]).ravel()])
    left = off.ravel()
    for _ in range(2):
        information = design.T @ design
        if not np.linalg.cond(information) < 1e12:
            return None
        found = np.linalg.solve(information, design.T @ left)
        rest = left - design @ found
        kept = np.abs(rest) < 5 * 1.4826 * np.median(np.abs(rest)) + 1e-12
        design, left = design[kept], left[kept]
    rest = left - design @ found
    inverse = np.linalg.inv(design.T @ design)
    score = design * rest[:, None]
    covariance = inverse @ (score.T @ score) @ inverse
    return float(found[0]), float(math.sqrt(max(covariance[0, 0], 0.0)))
