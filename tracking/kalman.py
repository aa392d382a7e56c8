"""Kalman filter with a constant-velocity model for all tracks at once, each axis by itself.

Symbols are those of Bar-Shalom, Li & Kirubarajan, Estimation with Applications to Tracking and Navigation (2001),
chapters 5.2 and 6.2. The state of a particle in an axis is x = (p, v), position (um) and velocity (um/s), with the
covariance P = (pp, pv, vv):

    prediction   x = F x, P = F P F' + Q      F = (1 dt; 0 1), Q = diag(2 D dt, wander)
    update       nu = z - p, S = pp + R, K = (pp, pv) / S, x = x + K nu, P = (1 - K H) P      H = (1 0)

The position takes a Brownian step of variance 2 D dt. The velocity changes by `wander`, more where the
particle's Brownian steps across a sheared flow carry it to faster or slower streamlines. R is the square of the
detection's own standard error.

All tracks are columns of two arrays. `state` (25, capacity): p, v, pp, pv, vv, three axes each, the mean
brightness of the last detections, which decides nothing here, and the derivatives of pp, pv, vv with respect to q =
2 D at the gains that there were (see `tracking.process_noise`). `label` (4, capacity): track number, frame of the
first detection, clock of the last detection, number of detections.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numba import njit

from tracking.flow_field import ENOUGH, Flow, cell_at

POSITION, VELOCITY, PP, PV, VV = 0, 3, 6, 9, 12
BRIGHTNESS = 15
PP_SHARE, PV_SHARE, VV_SHARE = 16, 19, 22
STATES = 25
ID, FIRST, SEEN, HITS = 0, 1, 2, 3
LABELS = 4

BRIGHTNESS_DETECTIONS = 10.0
"""Detections in the mean brightness of a track: it is then known to a third of one detection's error, and follows a
particle that moves through uneven light within ten frames."""
WELL_KNOWN = 0.1
"""Variance of a velocity from two points, relative to what was expected, below which only the points count. The
expectation would change it by less than a tenth."""
FARTHEST_UM = 1e7  # 10 m: a coordinate beyond that is an error of the detector's, not a place
SMALLEST_SIGMA_UM = 1e-6  # 1 pm: smaller stated errors would make S singular


class Measured(NamedTuple):
    """The usable detections of a frame.

    `z` (3, M): positions, um; `R` (3, M): their variances, um^2; `origin` (M,): their rows in `table`, the frame's
    `Detections.table`.
    """

    z: Any
    R: Any
    origin: Any
    table: Any


@njit(cache=True, nogil=True, error_model="numpy")
def take_detections(measured: Any, count: int, axes: int, height: float, fallback: Any, widest: Any) -> int:
    """Copy the usable ones of `count` detections in `measured.table` into z and R; returns how many there are.

    The depth becomes `height` + z; a standard error that is not positive is replaced by that axis's `fallback`
    (3,), um. `widest` (3,) gets the largest R of each axis. Rows with a coordinate that is not finite, or
    beyond `FARTHEST_UM`, are left out. `Measured` is given as a plain tuple.
    """
    measured = Measured(*measured)
    z, R, origin, table = measured.z, measured.R, measured.origin, measured.table
    widest[:] = 0.0
    m = 0
    for j in range(count):
        usable = True
        for a in range(max(axes, 2)):
            usable &= abs(table[a, j]) < FARTHEST_UM
        if not usable:
            continue
        for a in range(axes):
            sigma = table[3 + a, j]
            if not sigma > 0.0:
                sigma = fallback[a]
            sigma = min(max(sigma, SMALLEST_SIGMA_UM), FARTHEST_UM)
            z[a, m] = table[a, j]
            R[a, m] = sigma * sigma
            widest[a] = max(widest[a], sigma * sigma)
        if axes == 3:
            z[2, m] += height
        origin[m] = j
        m += 1
    return m


@njit(cache=True, nogil=True, error_model="numpy")
def predict(
    state: Any,
    count: int,
    axes: int,
    dt: float,
    step_variance: Any,
    wander: Any,
    wander_share: float,
    flow: Any,
) -> None:
    """Predict `count` tracks `dt` (s) ahead.

    `step_variance` 2 D dt (3,), um^2, and `wander` (3,), um^2/s^2, are Q of this dt, `wander_share`, 1/s, is the
    derivative of `wander` with respect to 2 D; `flow` is a `Flow` as a plain tuple.
    """
    flow = Flow(*flow)
    fits = flow.fits
    for i in range(count):
        row = cell_at(flow.box, flow.shape, state[0, i], state[1, i], state[2, i])
        for a in range(axes):
            pp = state[PP + a, i]
            pv = state[PV + a, i]
            vv = state[VV + a, i]
            shear = 0.0
            if fits[row, 0] >= ENOUGH:
                for b in range(axes):
                    slope = fits[row, 7 + 3 * a + b]
                    shear += slope * slope * step_variance[b]
            state[POSITION + a, i] += state[VELOCITY + a, i] * dt
            state[PP + a, i] = pp + dt * (2.0 * pv + dt * vv) + step_variance[a]
            state[PV + a, i] = pv + dt * vv
            state[VV + a, i] = vv + wander[a] + shear
            pv = state[PV_SHARE + a, i]
            vv = state[VV_SHARE + a, i]
            state[PP_SHARE + a, i] += dt * (2.0 * pv + dt * vv) + dt
            state[PV_SHARE + a, i] = pv + dt * vv
            state[VV_SHARE + a, i] = vv + wander_share


@njit(cache=True, nogil=True, error_model="numpy")
def correct(state: Any, i: int, a: int, nu: float, variance: float) -> None:
    """Update track `i` in axis `a` by a detection of this variance R, with the innovation nu = z - p."""
    R = variance
    S = state[PP + a, i] + R
    pv = state[PV + a, i]
    gain = state[PP + a, i] / S
    slope = pv / S
    state[POSITION + a, i] += gain * nu
    state[VELOCITY + a, i] += slope * nu
    # (1 - K H) A (1 - K H)', the form that holds for any gain
    pp_share = state[PP_SHARE + a, i]
    pv_share = state[PV_SHARE + a, i]
    state[PP_SHARE + a, i] = (1.0 - gain) * (1.0 - gain) * pp_share
    state[PV_SHARE + a, i] = (1.0 - gain) * (pv_share - slope * pp_share)
    state[VV_SHARE + a, i] += slope * (slope * pp_share - 2.0 * pv_share)
    state[PP + a, i] = gain * R
    state[PV + a, i] = pv * R / S
    state[VV + a, i] = max(state[VV + a, i] - pv * pv / S, 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def correct_second(state: Any, i: int, a: int, nu: float, variance: float, dt: float) -> None:
    """The same for a track's second detection, `dt` (s) after the first: two points give a velocity.

    Where this velocity is much better known than what was expected of it before, it is taken as it is (two-point
    differencing, Bar-Shalom 2001, 5.5.3): a velocity that was only said to be within wide bounds is no knowledge,
    and must not enter the innovations by which the noise is judged.
    """
    R = variance
    vv = state[VV + a, i]
    both = (
        state[PP + a, i] - dt * (2.0 * state[PV + a, i] - dt * vv) + R
    )  # of the two points, and the step between
    if not (dt > 0.0 and both < WELL_KNOWN * dt * dt * vv):
        correct(state, i, a, nu, variance)
        return
    state[POSITION + a, i] += nu
    state[VELOCITY + a, i] += nu / dt
    state[PP + a, i] = R
    state[PV + a, i] = R / dt
    state[VV + a, i] = both / (dt * dt)
    state[VV_SHARE + a, i] += (state[PP_SHARE + a, i] / dt - 2.0 * state[PV_SHARE + a, i]) / dt
    state[PP_SHARE + a, i] = state[PV_SHARE + a, i] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def change_noise(state: Any, count: int, axes: int, change: Any) -> None:
    """Set the covariances of `count` tracks to what they are if q (3,), um^2/s, is larger by `change`.

    A covariance that would not be positive stays as it is: its shares do not belong to it, as when a track has
    changed sides.
    """
    for i in range(count):
        for a in range(axes):
            pp = state[PP + a, i] + change[a] * state[PP_SHARE + a, i]
            pv = state[PV + a, i] + change[a] * state[PV_SHARE + a, i]
            vv = state[VV + a, i] + change[a] * state[VV_SHARE + a, i]
            if pp > 0.0 and vv >= 0.0 and pv * pv <= pp * vv:
                state[PP + a, i] = pp
                state[PV + a, i] = pv
                state[VV + a, i] = vv


@njit(cache=True, nogil=True, error_model="numpy")
def remember_brightness(state: Any, i: int, seen: float, hits: int) -> None:
    """Take the brightness of the `hits`-th detection of track `i`, unless it is NaN, into its mean."""
    mean = state[BRIGHTNESS, i]
    if hits <= 1 or math.isnan(mean):
        state[BRIGHTNESS, i] = seen
    elif not math.isnan(seen):
        state[BRIGHTNESS, i] = mean + (seen - mean) / min(float(hits), BRIGHTNESS_DETECTIONS)


@njit(cache=True, nogil=True, error_model="numpy")
def move(state: Any, label: Any, source: int, target: int) -> None:
    """Copy a track to another column."""
    for row in range(STATES):
        state[row, target] = state[row, source]
    for row in range(LABELS):
        label[row, target] = label[row, source]
