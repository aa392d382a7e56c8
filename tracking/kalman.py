"""The motion of all tracks at once: constant velocity with random steps, an independent filter for each axis.

A particle's state in an axis is position p and velocity v with covariance (pp, pv, vv). Over dt the position
takes a Brownian step of variance q dt and the velocity wanders by `wander`, more where the particle's
Brownian steps across the flow carry it to faster or slower streamlines (Bar-Shalom, Li & Kirubarajan 2001,
ch. 6; the detection's own standard error is the measurement noise).

`state` is (15, capacity): p (3), v (3), pp (3), pv (3), vv (3). `label` is (4, capacity): track number, frame
of the first detection, clock of the last detection, detections so far. Rows of `Tracks` come out directly.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from stream.messages import TrackFlag, Tracks
from tracking.flow_field import ENOUGH, cell_at, expect
from tracking.process_noise import USUAL_CHI_SQUARE

P, V, PP, PV, VV = 0, 3, 6, 9, 12
STATES = 15
ID, FIRST, SEEN, HITS = 0, 1, 2, 3
LABELS = 4

COLUMNS = len(Tracks.COLUMNS)
TRACK, X, SIGMA, SPEED, SIGMA_SPEED, BRIGHTNESS, CONFIDENCE, AGE, DETECTION, FLAGS = (
    Tracks.COLUMNS.index(name)
    for name in (
        "track", "x_um", "sigma_x_um", "vx_um_s", "sigma_vx_um_s",
        "brightness", "confidence", "age_frames", "detection", "flags",
    )
)  # fmt: skip
PREDICTED = float(TrackFlag.PREDICTED)
TENTATIVE = float(TrackFlag.TENTATIVE)

FARTHEST_UM = 1e7
SMALLEST_SIGMA_UM = 1e-6

LINKED, MISSED, BORN, ENDED, ALIVE = 0, 1, 2, 3, 4
JUDGED = 5
TALLIES = 6


@njit(cache=True, nogil=True, error_model="numpy")
def take_detections(table, count, axes, height, fallback, points, variances, origin, widest):  # type: ignore[no-untyped-def]
    """Copy usable detections from a `Detections` table into `points` and `variances` (axes, M).

    z becomes height + z; a standard error that is not positive is replaced by that axis's `fallback` (3,).
    `origin` gets each point's row in the table, `widest` the largest variance of each axis. Returns M; rows
    with a coordinate that is not finite, or beyond `FARTHEST_UM`, are left out.
    """
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
            points[a, m] = table[a, j]
            variances[a, m] = sigma * sigma
            widest[a] = max(widest[a], sigma * sigma)
        if axes == 3:
            points[2, m] += height
        origin[m] = j
        m += 1
    return m


@njit(cache=True, nogil=True, error_model="numpy")
def _move(state, label, source, target):  # type: ignore[no-untyped-def]
    for row in range(STATES):
        state[row, target] = state[row, source]
    for row in range(LABELS):
        label[row, target] = label[row, source]


@njit(cache=True, nogil=True, error_model="numpy")
def drop_stale(state, label, count, clock, max_gap):  # type: ignore[no-untyped-def]
    """Remove tracks not detected for more than `max_gap` frames before this one; returns what is left."""
    kept = 0
    for i in range(count):
        if clock - label[SEEN, i] - 1 > max_gap:
            continue
        if kept != i:
            _move(state, label, i, kept)
        kept += 1
    return kept


@njit(cache=True, nogil=True, error_model="numpy")
def predict(state, count, axes, dt, step_variance, wander, fits, box, shape):  # type: ignore[no-untyped-def]
    """Move all tracks on by `dt` (s); `step_variance` (um^2) and `wander` (um^2/s^2) (3,) are for this dt."""
    for i in range(count):
        row = cell_at(box, shape, state[0, i], state[1, i], state[2, i])
        for a in range(axes):
            pp = state[PP + a, i]
            pv = state[PV + a, i]
            vv = state[VV + a, i]
            shear = 0.0
            if fits[row, 0] >= ENOUGH:
                for b in range(axes):
                    slope = fits[row, 7 + 3 * a + b]
                    shear += slope * slope * step_variance[b]
            state[P + a, i] += state[V + a, i] * dt
            state[PP + a, i] = pp + dt * (2.0 * pv + dt * vv) + step_variance[a]
            state[PV + a, i] = pv + dt * vv
            state[VV + a, i] = vv + wander[a] + shear


@njit(cache=True, nogil=True, error_model="numpy")
def update(  # type: ignore[no-untyped-def]
    state, label, count, next_id, axes, column_of, points, variances, origin, detections, table,
    frame, clock, height, confirm, max_gap, steady, dt,
    fits, box, shape, unknown, output, tally, below, settled, taken,
):  # fmt: skip
    """Correct linked tracks, end lost ones, start new ones, and write one row of `Tracks` for each.

    `steady` is False for plain frame-to-frame linking: velocities are then differences over `dt` (s).
    `unknown` (3,) is the velocity variance of a particle of which nothing is known. `output` is
    (columns, rows) with room for count + detections. Fills `tally` (linked, missed, born, ended, alive, and
    tracks that judged the noise), `below` (3,) (how many of those had a usual innovation, see `noise`),
    `settled` (which rows are confirmed and linked); `taken` is scratch, one flag a detection.
    """
    tally[:] = 0
    below[:] = 0
    taken[:detections] = False
    kept = 0
    for i in range(count):
        j = column_of[i]
        known = label[HITS, i] >= confirm
        if j < 0 and (not known or clock - label[SEEN, i] > max_gap):
            tally[ENDED] += 1
            continue
        if kept != i:
            _move(state, label, i, kept)
        if j < 0:
            tally[MISSED] += 1
            _write(state, label, kept, axes, frame, height, output, PREDICTED)
        else:
            taken[j] = True
            tally[LINKED] += 1
            tally[JUDGED] += known
            for a in range(axes):
                innovation = points[a, j] - state[P + a, kept]
                noise = variances[a, j]
                total = state[PP + a, kept] + noise
                if known and innovation * innovation < USUAL_CHI_SQUARE * total:
                    below[a] += 1
                if steady:
                    pv = state[PV + a, kept]
                    gain = state[PP + a, kept] / total
                    state[P + a, kept] += gain * innovation
                    state[V + a, kept] += pv / total * innovation
                    state[PP + a, kept] = gain * noise
                    state[PV + a, kept] = pv * noise / total
                    state[VV + a, kept] = max(state[VV + a, kept] - pv * pv / total, 0.0)
                else:
                    state[P + a, kept] = points[a, j]
                    state[V + a, kept] = innovation / dt
                    state[VV + a, kept] = total / (dt * dt)
                    state[PP + a, kept] = noise
            label[SEEN, kept] = clock
            label[HITS, kept] += 1
            flag = 0.0 if label[HITS, kept] >= confirm else TENTATIVE
            _write(state, label, kept, axes, frame, height, output, flag)
            _measured(kept, j, axes, points, variances, origin, table, height, output)
        settled[kept] = j >= 0 and label[HITS, kept] >= confirm
        kept += 1
    velocity = np.zeros(3)
    spread = np.zeros(3)
    for j in range(detections):
        if taken[j]:
            continue
        for a in range(3):
            state[P + a, kept] = points[a, j] if a < axes else 0.0
            state[PP + a, kept] = variances[a, j] if a < axes else 0.0
            state[PV + a, kept] = 0.0
        if not steady:
            velocity[:] = np.nan
            spread[:] = np.nan
        elif expect(fits, box, shape, state[P : P + 3, kept], state[PP : PP + 3, kept], velocity, spread):
            spread[:] = np.minimum(spread, unknown)
        else:
            velocity[:] = 0.0
            spread[:] = unknown
        state[V : V + 3, kept] = velocity
        state[VV : VV + 3, kept] = spread
        label[ID, kept] = next_id + tally[BORN]
        label[FIRST, kept] = frame
        label[SEEN, kept] = clock
        label[HITS, kept] = 1
        settled[kept] = confirm <= 1
        _write(state, label, kept, axes, frame, height, output, 0.0 if confirm <= 1 else TENTATIVE)
        _measured(kept, j, axes, points, variances, origin, table, height, output)
        tally[BORN] += 1
        kept += 1
    tally[ALIVE] = kept


@njit(cache=True, nogil=True, error_model="numpy")
def _write(state, label, i, axes, frame, height, output, flag):  # type: ignore[no-untyped-def]
    output[TRACK, i] = label[ID, i]
    for a in range(3):
        if a < axes:
            output[X + a, i] = state[P + a, i]
            output[SIGMA + a, i] = math.sqrt(state[PP + a, i])
            output[SPEED + a, i] = state[V + a, i]
            output[SIGMA_SPEED + a, i] = math.sqrt(state[VV + a, i])
        else:
            output[X + a, i] = np.nan
            output[SIGMA + a, i] = np.nan
            output[SPEED + a, i] = np.nan
            output[SIGMA_SPEED + a, i] = np.nan
    if axes == 3:
        output[X + 2, i] -= height
    output[BRIGHTNESS, i] = np.nan
    output[CONFIDENCE, i] = np.nan
    output[AGE, i] = frame - label[FIRST, i]
    output[DETECTION, i] = -1.0
    output[FLAGS, i] = flag


@njit(cache=True, nogil=True, error_model="numpy")
def _measured(i, j, axes, points, variances, origin, table, height, output):  # type: ignore[no-untyped-def]
    for a in range(axes):
        output[X + a, i] = points[a, j]
        output[SIGMA + a, i] = math.sqrt(variances[a, j])
    if axes == 3:
        output[X + 2, i] -= height
    output[BRIGHTNESS, i] = table[6, origin[j]]
    output[CONFIDENCE, i] = table[7, origin[j]]
    output[DETECTION, i] = origin[j]
