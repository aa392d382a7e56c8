"""Pairs of close tracks: are they one particle detected twice, or two? The sequential test and its kernels.

Each pair is followed by two Kalman filters of the difference of the two positions. One assumes that the
difference is constant (one particle, seen twice), the other that it moves (two particles). The log-likelihood
ratio of the two decides (A. Wald, Ann. Math. Stat. 16, 117, 1945).

A pair is a row. `names` (pairs, 3): track numbers of the older and the younger, and of the one that is flagged
(-1 for none). `states` (pairs, 20): the log-likelihood ratio, when both were last seen, how often, when first;
the first difference (2); the constant difference and its variance (2 each); the moving one's place and speed (2
each) and their covariance (pp, pv, vv; 2 each). All in um and s; pairs are in order of (older, younger).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numba import njit

from stream.messages import TrackFlag
from tracking.flow_field import Flow
from tracking.index_type import Index
from tracking.track_life import AGE, CONFIDENCE, DETECTION, FLAGS, SIGMA, TRACK, X

SECOND_DETECTION = float(TrackFlag.SECOND_DETECTION)
"""numba compiles it, and the columns' numbers, into the kernels: compiled anew if this file changes."""
OLDER, YOUNGER, LOSER = 0, 1, 2
NAMES = 3
RATIO, TIME, COMMON, FIRST_TIME, FIRST, STILL, STILL_VARIANCE = 0, 1, 2, 3, 4, 6, 8
PLACE, SPEED, PP, PV, VV = 10, 12, 14, 16, 18
STATES = 20

SEARCH_EVERY = 4
"""Each track looks for new neighbours in every fourth frame: a quarter of the search, up to three frames' delay."""
YOUNGEST_AGE = 2.0
"""Frames that a track must be old, so that most ghost tracks never form a pair."""
SURE = 5.0
"""Log-likelihood ratio that decides: by Wald a wrong decision in exp(-5), 0.7 %, of the pairs."""
SUREST = 15.0
"""Bound of the ratio, so that a pair that parts after a long time loses its flag within a few frames."""
LARGEST_STEP = 3.0
"""The most that one difference adds or takes, so that a single wrong link or bad position does not decide."""
FEWEST_COMMON = 10.0
"""Common detections before the rule of Franchini & Krevor is applied."""


class Pairs(NamedTuple):
    """`names` (capacity, 3) and `states` (capacity, 20) of the pairs, and how many `pairs` there are."""

    names: Any
    states: Any
    pairs: int


class Motion(NamedTuple):
    """How two particles may move against each other.

    `time_s` is the frame's, `frame_s` the time between frames. `q` (3,), um^2/s, is the variance of one
    particle's Brownian step a second, 2 D. `spread` (columns, 2), um^2/s^2, is how much velocities differ over
    depth in each column of the flow's grid, `box` and `shape`.
    """

    time_s: float
    frame_s: float
    q: Any
    spread: Any
    box: Any
    shape: Any


class Test(NamedTuple):
    """A pair ends beyond `part_um`; `by_displacement` chooses the rule of Franchini & Krevor, at `least_um` a
    frame."""

    part_um: float
    by_displacement: bool
    least_um: float


class Neighbours(NamedTuple):
    """Neighbours found: of the rows `searched[:wanted]` of the table, those are
    `row_of[indices[indptr[s]:indptr[s + 1]]]`."""

    row_of: Any
    searched: Any
    wanted: int
    indptr: Any
    indices: Any


@njit(cache=True, nogil=True, error_model="numpy")
def velocity_spread(flow: Any, noise: Any, spread: Any) -> None:
    """Fill `spread` (columns, 2), um^2/s^2: how much velocities in the plane differ over depth, in each column.

    From the fits of a `FlowField`: means of the cells above one another, the slope within each, and the scatter
    about it, less what the tracks' own velocity errors, `noise` (2,), would make. `Flow` is given as a plain tuple.
    """
    flow = Flow(*flow)
    fits, box, shape = flow.fits, flow.box, flow.shape
    columns = shape[0] * shape[1]
    thickness = (box[2, 1] - box[2, 0]) / shape[2] if box[2, 1] > box[2, 0] else 0.0
    for column in range(columns):
        for a in range(2):
            weight = 0.0
            mean = 0.0
            square = 0.0
            inside = 0.0
            for layer in range(shape[2]):
                fit = fits[layer * columns + column]
                weight += fit[0]
                mean += fit[0] * fit[4 + a]
                square += fit[0] * fit[4 + a] * fit[4 + a]
                slope = fit[9 + 3 * a] * thickness
                inside += fit[0] * (fit[16 + a] + slope * slope / 12.0)
            spread[column, a] = 0.0
            if weight > 0.0:
                mean /= weight
                total = square / weight - mean * mean + inside / weight
                spread[column, a] = max(total - 2.0 * noise[a], 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _row_of(table: Any, rows: int, track: int) -> int:
    """Row of a track, -1 for none; rows are in order of tracks."""
    low = 0
    high = rows
    while low < high:
        middle = (low + high) >> 1
        if table[TRACK, middle] < track:
            low = middle + 1
        else:
            high = middle
    if low < rows and table[TRACK, low] == track:
        return low
    return -1


@njit(cache=True, nogil=True, error_model="numpy")
def _log_likelihood(nu: float, variance: float) -> float:
    """Of a normal innovation nu of this variance, without the constant."""
    return -0.5 * (nu * nu / variance + math.log(variance))


@njit(cache=True, nogil=True, error_model="numpy")
def _column(box: Any, shape: Any, x: float, y: float) -> Any:
    """The column of the flow's grid at a place."""
    ix = 0
    iy = 0
    if box[0, 1] > box[0, 0]:
        ix = min(max(int((x - box[0, 0]) / (box[0, 1] - box[0, 0]) * shape[0]), 0), shape[0] - 1)
    if box[1, 1] > box[1, 0]:
        iy = min(max(int((y - box[1, 0]) / (box[1, 1] - box[1, 0]) * shape[1]), 0), shape[1] - 1)
    return iy * shape[0] + ix


@njit(cache=True, nogil=True, error_model="numpy")
def follow(table: Any, rows: int, pairs: Any, motion: Any, test: Any) -> int:
    """Bring all pairs up to this frame and judge them; returns how many are left (in the same order).

    A pair ends when one of its tracks has ended or when they are farther apart than `test.part_um`. A frame in
    which one of them was not detected says nothing. `Pairs`, `Motion` and `Test` are given as plain tuples.
    """
    pairs, motion, test = Pairs(*pairs), Motion(*motion), Test(*test)
    names, states, time_s, frame_s, q = pairs.names, pairs.states, motion.time_s, motion.frame_s, motion.q
    part_um, by_displacement, least_um = test
    kept = Index(0)
    for k in range(pairs.pairs):
        i = _row_of(table, rows, names[k, OLDER])
        j = _row_of(table, rows, names[k, YOUNGER])
        if i < 0 or j < 0:
            continue
        if table[DETECTION, i] >= 0.0 and table[DETECTION, j] >= 0.0:
            dx = table[X, j] - table[X, i]
            dy = table[X + 1, j] - table[X + 1, i]
            if dx * dx + dy * dy > part_um * part_um:
                continue
            if states[k, COMMON] == 0.0:
                _start(table, states, k, i, j, motion)
            else:
                _learn(table, states, k, i, j, time_s - states[k, TIME], q)
            states[k, TIME] = time_s
            states[k, COMMON] += 1.0
            same = states[k, RATIO] >= SURE
            other = states[k, RATIO] <= -SURE
            if by_displacement:
                frames = (time_s - states[k, FIRST_TIME]) / frame_s if frame_s > 0.0 else 0.0
                moved = math.hypot(dx - states[k, FIRST], dy - states[k, FIRST + 1])
                enough = states[k, COMMON] >= FEWEST_COMMON and frames > 0.0
                same = enough and moved < least_um * frames
                other = not same
            if other:
                names[k, LOSER] = -1
            elif same and names[k, LOSER] < 0:
                names[k, LOSER] = _loser(table, i, j)
        if kept != k:
            _copy_pair(names, states, k, names, states, kept)
        kept += 1
    return kept


@njit(cache=True, nogil=True, error_model="numpy")
def _loser(table: Any, i: int, j: int) -> int:
    """The track of a pair that is flagged: the younger, of the same age the less confident."""
    if table[AGE, i] == table[AGE, j] and table[CONFIDENCE, i] < table[CONFIDENCE, j]:
        return int(table[TRACK, i])
    return int(table[TRACK, j])


@njit(cache=True, nogil=True, error_model="numpy")
def _start(table: Any, states: Any, k: int, i: int, j: int, motion: Any) -> None:
    """Start both filters of pair `k` at the difference of rows `j` and `i`."""
    column = _column(motion.box, motion.shape, table[X, i], table[X + 1, i])
    states[k, RATIO] = 0.0
    states[k, FIRST_TIME] = motion.time_s
    for a in range(2):
        apart = table[X + a, j] - table[X + a, i]
        error = table[SIGMA + a, i] ** 2 + table[SIGMA + a, j] ** 2
        states[k, FIRST + a] = apart
        states[k, STILL + a] = apart
        states[k, STILL_VARIANCE + a] = error
        states[k, PLACE + a] = apart
        states[k, SPEED + a] = 0.0
        states[k, PP + a] = error
        states[k, PV + a] = 0.0
        states[k, VV + a] = 2.0 * motion.spread[column, a]


@njit(cache=True, nogil=True, error_model="numpy")
def _learn(table: Any, states: Any, k: int, i: int, j: int, dt: float, q: Any) -> None:
    """Add the log-likelihood ratio of one more difference (constant over moving), and update both filters."""
    gain = 0.0
    for a in range(2):
        z = table[X + a, j] - table[X + a, i]
        R = table[SIGMA + a, i] ** 2 + table[SIGMA + a, j] ** 2
        S = states[k, STILL_VARIANCE + a] + R
        nu = z - states[k, STILL + a]
        gain += _log_likelihood(nu, S)
        states[k, STILL + a] += states[k, STILL_VARIANCE + a] / S * nu
        states[k, STILL_VARIANCE + a] *= R / S
        pv = states[k, PV + a]
        vv = states[k, VV + a]
        pp = states[k, PP + a] + dt * (2.0 * pv + dt * vv) + 2.0 * q[a] * dt
        pv += dt * vv
        S = pp + R
        nu = z - states[k, PLACE + a] - dt * states[k, SPEED + a]
        gain -= _log_likelihood(nu, S)
        states[k, PLACE + a] += dt * states[k, SPEED + a] + pp / S * nu
        states[k, SPEED + a] += pv / S * nu
        states[k, PP + a] = pp * R / S
        states[k, PV + a] = pv * R / S
        states[k, VV + a] = max(vv - pv * pv / S, 0.0)
    ratio = states[k, RATIO] + min(max(gain, -LARGEST_STEP), LARGEST_STEP)
    states[k, RATIO] = min(max(ratio, -SUREST), SUREST)


@njit(cache=True, nogil=True, error_model="numpy")
def choose(
    table: Any, rows: int, frame: int, points: Any, row_of: Any, origins: Any, searched: Any
) -> tuple[int, int]:
    """Copy the detected tracks that are old enough into `points`, and the part to search for into `origins`."""
    count = 0
    wanted = 0
    for i in range(rows):
        if table[DETECTION, i] < 0.0 or table[AGE, i] < YOUNGEST_AGE:
            continue
        points[0, count] = table[X, i]
        points[1, count] = table[X + 1, i]
        row_of[count] = i
        count += 1
        if (int(table[TRACK, i]) + frame) % SEARCH_EVERY == 0:
            origins[0, wanted] = table[X, i]
            origins[1, wanted] = table[X + 1, i]
            searched[wanted] = i
            wanted += 1
    return count, wanted


@njit(cache=True, nogil=True, error_model="numpy")
def _copy_pair(names: Any, states: Any, at: int, new_names: Any, new_states: Any, to: int) -> None:
    """Copy pair `at` to place `to`. Element by element: assigning whole rows takes numba a second to compile."""
    for column in range(NAMES):
        new_names[to, column] = names[at, column]
    for column in range(STATES):
        new_states[to, column] = states[at, column]


@njit(cache=True, nogil=True, error_model="numpy")
def merge(table: Any, time_s: float, neighbours: Any, pairs: Any, merged: Any) -> int:
    """Merge the known `pairs` with the `neighbours` found into `merged`, in order of (older, younger).

    Returns how many pairs there are then. `Neighbours` and two `Pairs` are given as plain tuples.
    """
    neighbours, pairs, merged = Neighbours(*neighbours), Pairs(*pairs), Pairs(*merged)
    row_of, searched, wanted, indptr, indices = neighbours
    names, states, new_names, new_states = pairs.names, pairs.states, merged.names, merged.states
    at = Index(0)  # not a constant, for which `_copy_pair` would be compiled again
    size = Index(0)
    for s in range(wanted):
        older = int(table[TRACK, searched[s]])
        begin = indptr[s]
        end = indptr[s + 1]
        count = 0
        for k in range(begin, end):
            row = row_of[indices[k]]
            if row <= searched[s]:
                continue
            place = begin + count
            while place > begin and indices[place - 1] > row:
                indices[place] = indices[place - 1]
                place -= 1
            indices[place] = row
            count += 1
        for k in range(begin, begin + count):
            younger = int(table[TRACK, indices[k]])
            while at < pairs.pairs and (
                names[at, OLDER] < older or (names[at, OLDER] == older and names[at, YOUNGER] < younger)
            ):
                _copy_pair(names, states, at, new_names, new_states, size)
                size += 1
                at += 1
            if at < pairs.pairs and names[at, OLDER] == older and names[at, YOUNGER] == younger:
                continue
            new_names[size, OLDER] = older
            new_names[size, YOUNGER] = younger
            new_names[size, LOSER] = -1
            new_states[size, COMMON] = 0.0
            new_states[size, RATIO] = 0.0
            new_states[size, TIME] = time_s
            size += 1
    while at < pairs.pairs:
        _copy_pair(names, states, at, new_names, new_states, size)
        size += 1
        at += 1
    return size


@njit(cache=True, nogil=True, error_model="numpy")
def flag(table: Any, rows: int, names: Any, pairs: int) -> int:
    """Flag the tracks that are second detections; returns how many there are."""
    flagged = 0
    for k in range(pairs):
        if names[k, LOSER] < 0:
            continue
        i = _row_of(table, rows, names[k, LOSER])
        if i >= 0 and (int(table[FLAGS, i]) & int(SECOND_DETECTION)) == 0:
            table[FLAGS, i] += SECOND_DETECTION
            flagged += 1
    return flagged
