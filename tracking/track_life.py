"""Birth, confirmation, gaps and death of tracks: decided here, for all tracks of a frame at once.

- Birth: every detection that no track has taken starts a tentative track.
- Confirmation: a track is confirmed once it has `confirm` detections.
- Gap: a confirmed track without a detection is predicted, for at most `max_gap` camera frames.
- Death: a tentative track dies at its first miss, a confirmed one after a longer gap (`dies`), and every track when
  more frames than that were lost (`drop_stale`).

Rows of `Tracks` are written on the way.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from stream.messages import DetectionFlag, Detections, TrackFlag, Tracks
from tracking.flow_field import Flow, expect
from tracking.index_type import Index
from tracking.kalman import (
    FIRST,
    HITS,
    ID,
    POSITION,
    PP,
    PP_SHARE,
    PV,
    SEEN,
    STATES,
    VELOCITY,
    VV,
    VV_SHARE,
    Measured,
    correct,
    correct_second,
    move,
    remember_brightness,
)
from tracking.process_noise import SHARE, SQUARE, VARIANCE

COLUMNS = len(Tracks.COLUMNS)
TRACK, X, SIGMA, SPEED, SIGMA_SPEED, BRIGHTNESS, CONFIDENCE, AGE, DETECTION, FLAGS = (
    Tracks.COLUMNS.index(name)
    for name in (
        "track", "x_um", "sigma_x_um", "vx_um_s", "sigma_vx_um_s",
        "brightness", "confidence", "age_frames", "detection", "flags",
    )
)  # fmt: skip
MORE = slice(Tracks.COLUMNS.index(Tracks.MORE[0]), Tracks.COLUMNS.index(Tracks.LINKED[-1]) + 1)
BEFORE = Tracks.COLUMNS.index("track_before")
PREDICTED = float(TrackFlag.PREDICTED)
TENTATIVE = float(TrackFlag.TENTATIVE)
REDUCED = float(TrackFlag.REDUCED)
OF_DETECTION, REDUCED_DETECTION = Detections.COLUMNS.index("flags"), int(DetectionFlag.REDUCED)

KNOWN_BY_POINTS = (
    0.9  # part of the variance of two steps that a velocity has if it is the difference of two points
)
LINKED, MISSED, BORN, ENDED, ALIVE, JUDGED = 0, 1, 2, 3, 4, 5
TALLIES = 6

# numba compiles the numbers of the columns into what is below: it is compiled anew if this file changes.
# `_continue` and `_bear` are inlined: called as functions, with tuples of arrays as arguments, they made `advance`
# 10 to 20 % slower.


class Population(NamedTuple):
    """All tracks: `state` and `label` (see `tracking.kalman`), how many are `alive`, the next one's number."""

    state: Any
    label: Any
    alive: int
    next_id: int


class Rules(NamedTuple):
    """Axes (2 or 3); detections that confirm a track; longest gap, camera frames; whether a filter runs.

    Without `filtered` (plain linking from frame to frame) velocities are differences of positions. A linked track
    that had `judging` detections before judges the noise.
    """

    axes: int
    confirm: int
    max_gap: int
    filtered: bool
    judging: int


class Moment(NamedTuple):
    """The frame's number, its camera frame counted from the first (`clock`), focus `height` (um), `dt` (s)
    before it."""

    frame: int
    clock: int
    height: float
    dt: float


class Outcome(NamedTuple):
    """What `advance` fills.

    `rows` (columns, N + M): the rows of `Tracks`. `tally` (6,): linked, missed, born, ended, alive, and how many
    linked tracks judge the noise. `judged` (9, N + M): what those say, as `tracking.process_noise.StepNoise.learn`
    takes it. `settled` (N + M,): which rows are confirmed and linked. `taken` (M,): which detections a track has
    taken.
    """

    rows: Any
    tally: Any
    judged: Any
    settled: Any
    taken: Any


@njit(cache=True, nogil=True, error_model="numpy")
def dies(missed_frames: int, confirmed: bool, max_gap: int) -> bool:
    """Whether a track ends that was not detected in this frame and in `missed_frames` altogether, this one
    included."""
    return not confirmed or missed_frames > max_gap


@njit(cache=True, nogil=True, error_model="numpy")
def drop_stale(state: Any, label: Any, count: int, clock: int, max_gap: int) -> int:
    """Remove tracks for which too many frames were lost before this one; returns how many are left."""
    kept = Index(0)
    for i in range(count):
        if clock - label[SEEN, i] - 1 > max_gap:
            continue
        if kept != i:
            move(state, label, i, kept)
        kept += 1
    return kept


@njit(cache=True, nogil=True, error_model="numpy")
def advance(
    tracks: Any,
    links: Any,
    measured: Any,
    detections: int,
    rules: Any,
    moment: Any,
    flow: Any,
    unknown: Any,
    outcome: Any,
) -> None:
    """Correct the linked tracks, end the lost ones, start new ones, and write a row of `Tracks` for each.

    `links` is the detection of each track, -1 for none; `detections` is how many there are; `unknown` (3,),
    um^2/s^2, is the velocity variance of a particle of which nothing is known. `Population`, `Measured`,
    `Rules`, `Moment`, `Flow` and `Outcome` are given as plain tuples (see `tracking.assignment.solve`).
    """
    tracks, measured, rules = Population(*tracks), Measured(*measured), Rules(*rules)
    moment, flow, outcome = Moment(*moment), Flow(*flow), Outcome(*outcome)
    outcome.tally[:] = 0
    outcome.taken[:detections] = False
    kept = _continue(tracks, links, measured, rules, moment, outcome)
    kept = _bear(tracks, kept, measured, detections, rules, moment, flow, unknown, outcome)
    outcome.tally[ALIVE] = kept


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _continue(tracks: Any, links: Any, measured: Any, rules: Any, moment: Any, outcome: Any) -> int:
    """Correct, predict or end the tracks that there were; returns how many are left."""
    state, label, z, R = tracks.state, tracks.label, measured.z, measured.R
    origin, table = measured.origin, measured.table
    rows, tally, judged, settled, taken = outcome
    axes, confirm, dt = rules.axes, rules.confirm, moment.dt
    kept = Index(0)  # so here and below: one type, for which the functions called are compiled once
    for i in range(tracks.alive):
        j = Index(links[i])
        confirmed = label[HITS, i] >= confirm
        if j < 0 and dies(moment.clock - label[SEEN, i], confirmed, rules.max_gap):
            tally[ENDED] += 1
            continue
        if kept != i:
            move(state, label, i, kept)
        if j < 0:
            tally[MISSED] += 1
            _write(state, label, kept, axes, moment, PREDICTED, rows)
        else:
            taken[j] = True
            tally[LINKED] += 1
            judges = label[HITS, kept] >= rules.judging
            for a in range(axes):
                nu = z[a, j] - state[POSITION + a, kept]
                S = state[PP + a, kept] + R[a, j]
                if judges:
                    # Of a velocity from two points nothing else is known; else its variance is partly a guess.
                    known = label[HITS, kept] > 2 or state[VV_SHARE + a, kept] * dt > KNOWN_BY_POINTS
                    judged[SQUARE + a, tally[JUDGED]] = nu * nu
                    judged[VARIANCE + a, tally[JUDGED]] = S
                    judged[SHARE + a, tally[JUDGED]] = state[PP_SHARE + a, kept] if known else 0.0
                if rules.filtered and label[HITS, kept] == 1 and confirm > 1:
                    correct_second(state, kept, a, nu, R[a, j], dt)
                elif rules.filtered:
                    correct(state, kept, a, nu, R[a, j])
                else:
                    state[POSITION + a, kept] = z[a, j]
                    state[VELOCITY + a, kept] = nu / dt
                    state[VV + a, kept] = S / (dt * dt)
                    state[PP + a, kept] = R[a, j]
            tally[JUDGED] += judges
            label[SEEN, kept] = moment.clock
            label[HITS, kept] += 1
            remember_brightness(state, kept, table[6, origin[j]], label[HITS, kept])
            flag = 0.0 if label[HITS, kept] >= confirm else TENTATIVE
            _write(state, label, kept, axes, moment, flag, rows)
            write_measured(kept, j, axes, z, R, origin, table, moment.height, rows)
        settled[kept] = j >= 0 and label[HITS, kept] >= confirm
        kept += 1
    return kept


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _bear(
    tracks: Any,
    kept: int,
    measured: Any,
    detections: int,
    rules: Any,
    moment: Any,
    flow: Any,
    unknown: Any,
    outcome: Any,
) -> int:
    """Start a track after the `kept` ones at every detection that is not taken; returns how many there are then."""
    state, label, z, R = tracks.state, tracks.label, measured.z, measured.R
    origin, table, axes = measured.origin, measured.table, rules.axes
    rows, tally, _, settled, taken = outcome
    confirmed = rules.confirm <= 1
    velocity = np.zeros(3)
    variance = np.zeros(3)
    for j in range(detections):
        if taken[j]:
            continue
        for a in range(3):
            state[POSITION + a, kept] = z[a, j] if a < axes else 0.0
            state[PP + a, kept] = R[a, j] if a < axes else 0.0
            state[PV + a, kept] = 0.0
            for row in range(PP_SHARE, STATES, 3):
                state[row + a, kept] = 0.0
        place, place_variance = state[POSITION : POSITION + 3, kept], state[PP : PP + 3, kept]
        if not rules.filtered:
            velocity[:] = np.nan
            variance[:] = np.nan
        elif expect(flow, place, place_variance, velocity, variance):
            for a in range(3):  # as `np.minimum`, which takes numba a second to compile
                if not variance[a] <= unknown[a] and not np.isnan(variance[a]):
                    variance[a] = unknown[a]
        else:
            for a in range(3):
                velocity[a], variance[a] = 0.0, unknown[a]
        for a in range(3):
            state[VELOCITY + a, kept], state[VV + a, kept] = velocity[a], variance[a]
        begin(label, kept, tracks.next_id + tally[BORN], moment.frame, moment.clock)
        remember_brightness(state, kept, table[6, origin[j]], 1)
        settled[kept] = confirmed
        _write(state, label, kept, axes, moment, 0.0 if confirmed else TENTATIVE, rows)
        write_measured(kept, j, axes, z, R, origin, table, moment.height, rows)
        tally[BORN] += 1
        kept += 1
    return kept


@njit(cache=True, nogil=True, error_model="numpy")
def begin(label: Any, i: int, number: int, frame: int, clock: int) -> None:
    """Give the new track `i` its number; `frame` and `clock` are those of its first detection."""
    label[ID, i] = number
    label[FIRST, i] = frame
    label[SEEN, i] = clock
    label[HITS, i] = 1


@njit(cache=True, nogil=True, error_model="numpy")
def write_name(label: Any, i: int, frame: int, flag: float, rows: Any) -> None:
    """Write which track's the row `i` is, and that it has no detection (`write_measured` has the rest)."""
    rows[TRACK, i] = label[ID, i]
    rows[BRIGHTNESS, i] = np.nan
    rows[CONFIDENCE, i] = np.nan
    rows[AGE, i] = frame - label[FIRST, i]
    rows[DETECTION, i] = -1.0
    rows[FLAGS, i] = flag


@njit(cache=True, nogil=True, error_model="numpy")
def _write(state: Any, label: Any, i: int, axes: int, moment: Any, flag: float, rows: Any) -> None:
    """Write the row of track `i` as the filter has it, without a detection."""
    write_name(label, i, moment.frame, flag, rows)
    for a in range(3):
        if a < axes:
            rows[X + a, i] = state[POSITION + a, i]
            rows[SIGMA + a, i] = math.sqrt(state[PP + a, i])
            rows[SPEED + a, i] = state[VELOCITY + a, i]
            rows[SIGMA_SPEED + a, i] = math.sqrt(state[VV + a, i])
        else:
            rows[X + a, i] = np.nan
            rows[SIGMA + a, i] = np.nan
            rows[SPEED + a, i] = np.nan
            rows[SIGMA_SPEED + a, i] = np.nan
    if axes == 3:
        rows[X + 2, i] -= moment.height


@njit(cache=True, nogil=True, error_model="numpy")
def write_measured(
    i: int, j: int, axes: int, z: Any, variance: Any, origin: Any, table: Any, height: float, rows: Any
) -> None:
    """Write detection `j` as it was measured, not smoothed, into the row of track `i`."""
    for a in range(axes):
        rows[X + a, i] = z[a, j]
        rows[SIGMA + a, i] = math.sqrt(variance[a, j])
    if axes == 3:
        rows[X + 2, i] -= height
    rows[BRIGHTNESS, i] = table[6, origin[j]]
    rows[CONFIDENCE, i] = table[7, origin[j]]
    rows[DETECTION, i] = origin[j]
    if int(table[OF_DETECTION, origin[j]]) & REDUCED_DETECTION:
        rows[FLAGS, i] += REDUCED
