"""Birth, confirmation, gaps and death of switching tracks, and what their links teach, for all tracks of a frame.

As in `tracking.track_life`, but a track without a detection becomes less likely to be there, and ends when it
hardly is; where its slice of a volume is missing it cannot have been seen, and that counts for nothing.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from stream.messages import Detections, Tracks
from tracking.flow_field import Flow
from tracking.kalman import BRIGHTNESS_DETECTIONS, Measured
from tracking.switching.merging import as_of_one, log_mixture
from tracking.switching.motion import (
    APART,
    B_FROM_N,
    BRIGHTNESS,
    CONFIRMED,
    D_FROM_N,
    EXISTS,
    FROM_B,
    HITS,
    LABELS,
    LINK,
    MISSED,
    MU,
    N_FROM_N,
    PAST_FROM_B,
    PAST_KIND,
    PAST_STAYED_B,
    PAST_STEPS,
    PP,
    ROWS,
    SEEN,
    SHARES,
    STATES,
    STAYED_B,
    TIME,
    VV,
    B,
    D,
    Motion,
    N,
    P,
    V,
    bear_one,
    correct_one,
    mean_of,
    shift_one,
    variance_of,
)
from tracking.track_life import (
    ALIVE,
    BORN,
    ENDED,
    LINKED,
    PREDICTED,
    SIGMA,
    SIGMA_SPEED,
    SPEED,
    TENTATIVE,
    X,
    begin,
    write_measured,
    write_name,
)
from tracking.track_life import MISSED as TALLY_MISSED

LEAST_EXISTS = 0.01
"""A track ends when it is there with less than this probability. With 0.05 particles that blink lose tracks where
few are missed; with 0.001 ends are told a frame later."""
SURE = 0.98
"""Probability of its first link from which a track is confirmed at once. Of two false detections that are linked
fewer than one in 50 pass; with 0.999 hardly any track is confirmed by two detections."""
UNSEEN_FRAMES = 20
"""Camera frames after which a track ends in any case, in longest gaps: one whose slices are missing forever."""
OFFSET = Tracks.COLUMNS.index("time_offset_s")
FLAG_COLUMN = Detections.COLUMNS.index("flags")

STEP_B, STEP_D, WEIGHT_B, WEIGHT_D = 0, 3, 6, 9
STAY_B, START, STOP, STAY_D, TURN = 12, 13, 14, 15, 16
DIRECTED, ALL = 17, 18
DETECTED, UNDETECTED, DIED, LIVED = 19, 20, 21, 22
SUMS = 23
"""What a frame teaches, as sums: E[step^2]/dt and weights for B and D, three axes each; expected transitions; how
many are directed, of all; frames in which particles were detected, or not although there; how many died in how
many frames. Room for six more numbers is behind it."""


class Life(NamedTuple):
    """Rules: axes, detections that confirm, longest gap; probabilities that a new track is directed, that it is
    real, and that a particle is detected."""

    axes: int
    confirm: int
    max_gap: int
    directed: float
    real: float
    detection: float


class Moment(NamedTuple):
    """The frame's number, its camera frame (`clock`), focus `height`, um, time `now`, s, on the tracker's clock."""

    frame: int
    clock: int
    height: float
    now: float


@njit(cache=True, nogil=True, error_model="numpy")
def advance(
    tracks: Any, links: Any, costs: Any, measured: Any, times: Any, detections: int, seen: Any, no_link: float,
    life: Any, moment: Any, motion: Any, flow: Any, outcome: Any, work: Any,
) -> None:  # fmt: skip
    """Correct the linked tracks, end the lost ones, start new ones, write rows of `Tracks`, sum up what is learnt.

    `tracks`: state, label, how many, the next number. `links`: the detection of each (N,), -1 for none,
    and what `merging.pair_up` found; `costs` (N,) of these links, of which `no_link` is the limit. `times`
    (M,): when each detection was imaged. `outcome`: rows (columns, N + M), tally, taken
    (M,), sums (SUMS,).
    """
    state, label, alive, next_id = tracks
    links, partner, chance, place, spread = links
    of_z, of_variance = np.zeros((3, 1)), np.zeros((3, 1))
    measured, life, moment = Measured(*measured), Life(*life), Moment(*moment)
    motion, flow = Motion(*motion), Flow(*flow)
    rows, tally, taken, sums = outcome
    z, variances, origin, table = measured.z, measured.R, measured.origin, measured.table
    axes = life.axes
    tally[:] = 0
    sums[:] = 0.0
    taken[:detections] = False
    logs = work[4]
    kept = 0
    shared = np.full(alive, -1)  # the detection that a track has together with its partner
    for i in range(alive):
        j, k = int(links[i]), partner[i]
        if j >= 0 and k >= 0 and partner[k] == i and links[k] < 0:
            later = times[j] - state[TIME, i]
            as_of_one(i, k, axes, z, variances, j, place, spread, of_z, of_variance)
            both = math.log(chance[i]) + axes * math.log(2.0)
            both += log_mixture(state, i, axes, of_z, of_variance, 0, later)
            if both > math.log(1.0 - chance[i]) + log_mixture(state, i, axes, z, variances, j, later):
                shared[i] = shared[k] = j
    for i in range(alive):
        j = int(links[i])
        confirmed = label[CONFIRMED, i] > 0
        if j < 0:
            e, p = state[EXISTS, i], seen[i]
            e = e * (1.0 - p) / (1.0 - e * p)
            if shared[i] >= 0:
                e = state[EXISTS, i]
            elif p >= 0.5 * life.detection:
                label[MISSED, i] += 1
            gone = label[MISSED, i] > life.max_gap
            gone |= moment.clock - label[SEEN, i] > UNSEEN_FRAMES * (life.max_gap + 1)
            if not confirmed or e < LEAST_EXISTS or gone:
                tally[ENDED] += 1
                if confirmed:
                    sums[DIED] += 1.0
                continue
            state[EXISTS, i] = e
        if kept != i:
            for row in range(STATES):
                state[row, kept] = state[row, i]
            for row in range(LABELS):
                label[row, kept] = label[row, i]
        label[LINK, kept], label[SHARES, kept] = max(j, shared[i]), j < 0 and shared[i] >= 0
        for a in range(3):
            state[APART + a, kept] = abs(place[a, i] - place[a, partner[i]]) if shared[i] >= 0 else 0.0
        if j < 0:
            tally[TALLY_MISSED] += 1
            if shared[i] >= 0:
                shift_one(state, kept, axes, times[shared[i]] - state[TIME, kept], motion)
                state[TIME, kept] = times[shared[i]]
                as_of_one(i, partner[i], axes, z, variances, shared[i], place, spread, of_z, of_variance)
                correct_one(state, kept, axes, of_z, of_variance, 0, logs)
            _write(state, label, kept, axes, moment, PREDICTED, rows, motion)
        else:
            taken[j] = True
            tally[LINKED] += 1
            shift = times[j] - state[TIME, kept]
            if shift != 0.0:
                shift_one(state, kept, axes, shift, motion)
                state[TIME, kept] = times[j]
            if shared[i] >= 0:
                as_of_one(i, partner[i], axes, z, variances, j, place, spread, of_z, of_variance)
                correct_one(state, kept, axes, of_z, of_variance, 0, logs)
                state[PAST_KIND, kept] = 0.0
            elif label[HITS, kept] >= 2:
                _sum_steps(state, kept, axes, z, variances, j, motion, moment, sums, label, logs)
            else:
                correct_one(state, kept, axes, z, variances, j, logs)
            right = 1.0 / (1.0 + math.exp(0.5 * (costs[i] - no_link)))
            if confirmed:
                sums[DETECTED] += right
                sums[UNDETECTED] += right * label[MISSED, kept]
                sums[LIVED] += right * (1.0 + label[MISSED, kept])
            elif right > SURE or label[HITS, kept] + 1 >= life.confirm:
                label[CONFIRMED, kept] = 1
            state[EXISTS, kept] = 1.0 if label[CONFIRMED, kept] else max(state[EXISTS, kept], 0.9)
            label[SEEN, kept] = moment.clock
            label[HITS, kept] += 1
            label[MISSED, kept] = 0
            mean, bright = state[BRIGHTNESS, kept], table[6, origin[j]]
            if math.isnan(mean):
                state[BRIGHTNESS, kept] = bright
            elif not math.isnan(bright):
                state[BRIGHTNESS, kept] = mean + (bright - mean) / min(
                    float(label[HITS, kept]), BRIGHTNESS_DETECTIONS
                )
            _write(
                state, label, kept, axes, moment, 0.0 if label[CONFIRMED, kept] else TENTATIVE, rows, motion
            )
            write_measured(kept, j, axes, z, variances, origin, table, moment.height, rows)
            rows[OFFSET, kept] = times[j] - moment.now
        kept += 1
    for j in range(detections):
        if taken[j]:
            continue
        bear_one(state, kept, axes, z, variances, j, life.directed, life.real, motion, flow, work)
        state[TIME, kept] = times[j]
        state[BRIGHTNESS, kept] = table[6, origin[j]]
        begin(label, kept, next_id + tally[BORN], moment.frame, moment.clock)
        label[MISSED, kept] = 0
        label[LINK, kept], label[SHARES, kept] = j, 0
        label[CONFIRMED, kept] = life.confirm <= 1
        _write(state, label, kept, axes, moment, 0.0 if label[CONFIRMED, kept] else TENTATIVE, rows, motion)
        write_measured(kept, j, axes, z, variances, origin, table, moment.height, rows)
        rows[OFFSET, kept] = times[j] - moment.now
        tally[BORN] += 1
        kept += 1
    tally[ALIVE] = kept


@njit(cache=True, nogil=True, error_model="numpy")
def write_again(
    state: Any,
    label: Any,
    columns: Any,
    measured: Any,
    times: Any,
    axes: int,
    moment: Any,
    motion: Any,
    rows: Any,
) -> None:
    """Write the rows of the tracks `columns` (N,) anew into the same columns of `rows`."""
    measured, moment, motion = Measured(*measured), Moment(*moment), Motion(*motion)
    for i in columns:
        j = label[LINK, i]
        has_row = j >= 0 and label[SHARES, i] == 0
        flag = PREDICTED if not has_row else 0.0 if label[CONFIRMED, i] else TENTATIVE
        _write(state, label, i, axes, moment, flag, rows, motion)
        if has_row:
            z, variances, origin, table = measured.z, measured.R, measured.origin, measured.table
            write_measured(i, j, axes, z, variances, origin, table, moment.height, rows)
            rows[OFFSET, i] = times[j] - moment.now


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_steps(
    state: Any, i: int, axes: int, z: Any, variances: Any, j: int, motion: Any, moment: Any, sums: Any,
    label: Any, logs: Any,
) -> None:  # fmt: skip
    """Correct track `i` by detection `j` and add what the step before says (expectation step of EM).

    Of a step it is known one step later whether it was Brownian or the first of directed motion: a switch that is
    judged at once is taken for a long random step, and fewer are counted than there are. So what the step says is
    kept, and added with the probabilities of the models, given the next detection as well. The expected square of a
    step of variance Q, given the innovation nu of variance S, is (Q nu / S)^2 + Q (1 - Q / S).
    """
    frames = max(moment.clock - label[SEEN, i], 1)
    dt = frames * motion.frame_s
    for a in range(axes):
        for m in range(2):
            at = m * ROWS
            S = state[at + PP + a, i] + variances[a, j]
            nu = z[a, j] - state[at + P + a, i]
            Q = motion.q[m, a] * dt
            gain = Q / S
            sums[SUMS + 3 * m + a] = ((gain * nu) ** 2 + Q * (1.0 - gain)) / dt
    correct_one(state, i, axes, z, variances, j, logs)
    if frames == 1 and state[PAST_KIND, i] > 0.0:
        b, d, n = state[MU + B, i], state[MU + D, i], state[MU + N, i]
        was_b = b * state[STAYED_B, i] + n * state[FROM_B, i]
        was_n = b * state[B_FROM_N, i] + d * state[D_FROM_N, i] + n * state[N_FROM_N, i]
        was_d = max(1.0 - was_b - was_n, 0.0)
        for a in range(axes):
            sums[STEP_B + a] += was_b * state[PAST_STEPS + a, i]
            sums[STEP_D + a] += was_d * state[PAST_STEPS + 3 + a, i]
            sums[WEIGHT_B + a] += was_b
            sums[WEIGHT_D + a] += was_d
        sums[DIRECTED] += was_d + was_n
        sums[ALL] += 1.0
        if state[PAST_KIND, i] > 1.0:
            sums[STAY_B] += was_b * state[PAST_STAYED_B, i]
            sums[STOP] += was_b * (1.0 - state[PAST_STAYED_B, i])
            sums[START] += was_n * state[PAST_FROM_B, i]
            sums[TURN] += was_n * (1.0 - state[PAST_FROM_B, i])
            sums[STAY_D] += was_d
    state[PAST_KIND, i] = 2.0 if frames == 1 else 1.0
    for k in range(6):
        state[PAST_STEPS + k, i] = sums[SUMS + k]


@njit(cache=True, nogil=True, error_model="numpy")
def _write(
    state: Any, label: Any, i: int, axes: int, moment: Any, flag: float, rows: Any, motion: Any
) -> None:
    """Write the row of track `i` as the models have it, without a detection."""
    write_name(label, i, moment.frame, flag, rows)
    for a in range(3):
        if a < axes:
            rows[X + a, i] = mean_of(state, i, a, P)
            rows[SIGMA + a, i] = math.sqrt(variance_of(state, i, a, P, PP, 0.0))
            rows[SPEED + a, i] = mean_of(state, i, a, V)
            drift = motion.q[0, a] / (20.0 * motion.frame_s) if motion.frame_s > 0.0 else np.nan
            rows[SIGMA_SPEED + a, i] = math.sqrt(variance_of(state, i, a, V, VV, drift))
        else:
            rows[X + a, i] = np.nan
            rows[SIGMA + a, i] = np.nan
            rows[SPEED + a, i] = np.nan
            rows[SIGMA_SPEED + a, i] = np.nan
    if axes == 3:
        rows[X + 2, i] -= moment.height
    rows[OFFSET, i] = state[TIME, i] - moment.now
