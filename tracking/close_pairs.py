"""Pairs of close tracks: two filters each, of a difference that stands still and of one that moves; the verdict.

A pair is a row. `names` (pairs, 3): track numbers of the older and the younger, and of the one that is flagged
(-1 for none). `states` (pairs, 20): the log-likelihood ratio, when both were last seen, how often, when first; the
first difference (2); the still one and its variance (2 each); the moving one's place and speed (2 each) and their
covariance (pp, pv, vv; 2 each). All in um and s; pairs are in order of (older, younger).
"""

from __future__ import annotations

import math

from numba import njit

from tracking.kalman import AGE, CONFIDENCE, DETECTION, FLAGS, SIGMA, TRACK, X

SECOND_DETECTION = 2.0
OLDER, YOUNGER, LOSER = 0, 1, 2
NAMES = 3
RATIO, TIME, COMMON, FIRST_TIME, FIRST, STILL, STILL_VARIANCE = 0, 1, 2, 3, 4, 6, 8
PLACE, SPEED, PP, PV, VV = 10, 12, 14, 16, 18
STATES = 20

SEARCH_EVERY = 4
YOUNGEST_AGE = 2.0
SURE = 5.0
SUREST = 15.0
LARGEST_STEP = 3.0
FEWEST_COMMON = 10.0


@njit(cache=True, nogil=True, error_model="numpy")
def velocity_spread(fits, box, shape, noise, spread):  # type: ignore[no-untyped-def]
    """Fill `spread` (columns, 2), um^2/s^2: how much velocities in the plane differ over depth, in each column.

    From the fits of a `FlowField`: means of the cells above one another, the slope within each, and the scatter
    about it, less what the tracks' own velocity errors, `noise` (2,), would make.
    """
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
def _row_of(table, rows, track):  # type: ignore[no-untyped-def]
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
def _likelihood(innovation, variance):  # type: ignore[no-untyped-def]
    return -0.5 * (innovation * innovation / variance + math.log(variance))


@njit(cache=True, nogil=True, error_model="numpy")
def _cell(box, shape, x, y):  # type: ignore[no-untyped-def]
    ix = 0
    iy = 0
    if box[0, 1] > box[0, 0]:
        ix = min(max(int((x - box[0, 0]) / (box[0, 1] - box[0, 0]) * shape[0]), 0), shape[0] - 1)
    if box[1, 1] > box[1, 0]:
        iy = min(max(int((y - box[1, 0]) / (box[1, 1] - box[1, 0]) * shape[1]), 0), shape[1] - 1)
    return iy * shape[0] + ix


@njit(cache=True, nogil=True, error_model="numpy")
def follow(  # type: ignore[no-untyped-def]
    table, rows, names, states, pairs, time_s, frame_s, step_rate, spread, box, shape,
    part_um, by_displacement, least_um,
):  # fmt: skip
    """Bring all pairs up to this frame and judge them; returns how many are left (in the same order).

    A pair ends when one of its tracks has ended or when they are farther apart than `part_um`. A frame in which
    one of them was not detected says nothing.
    """
    kept = 0
    for k in range(pairs):
        i = _row_of(table, rows, names[k, OLDER])
        j = _row_of(table, rows, names[k, YOUNGER])
        if i < 0 or j < 0:
            continue
        if table[DETECTION, i] >= 0.0 and table[DETECTION, j] >= 0.0:
            dx = table[X, j] - table[X, i]
            dy = table[X + 1, j] - table[X + 1, i]
            if dx * dx + dy * dy > part_um * part_um:
                continue
            dt = time_s - states[k, TIME]
            if states[k, COMMON] == 0.0:
                _start(table, states, k, i, j, time_s, spread, box, shape)
            else:
                _learn(table, states, k, i, j, dt, step_rate)
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
            for row in range(NAMES):
                names[kept, row] = names[k, row]
            for row in range(STATES):
                states[kept, row] = states[k, row]
        kept += 1
    return kept


@njit(cache=True, nogil=True, error_model="numpy")
def _loser(table, i, j):  # type: ignore[no-untyped-def]
    """The track of a pair that is flagged: the younger, of the same age the less confident."""
    if table[AGE, i] == table[AGE, j] and table[CONFIDENCE, i] < table[CONFIDENCE, j]:
        return int(table[TRACK, i])
    return int(table[TRACK, j])


@njit(cache=True, nogil=True, error_model="numpy")
def _start(table, states, k, i, j, time_s, spread, box, shape):  # type: ignore[no-untyped-def]
    column = _cell(box, shape, table[X, i], table[X + 1, i])
    states[k, RATIO] = 0.0
    states[k, FIRST_TIME] = time_s
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
        states[k, VV + a] = 2.0 * spread[column, a]


@njit(cache=True, nogil=True, error_model="numpy")
def _learn(table, states, k, i, j, dt, step_rate):  # type: ignore[no-untyped-def]
    """Add the log-likelihood ratio of one more difference (still over moving), and correct both filters."""
    gain = 0.0
    for a in range(2):
        apart = table[X + a, j] - table[X + a, i]
        error = table[SIGMA + a, i] ** 2 + table[SIGMA + a, j] ** 2
        total = states[k, STILL_VARIANCE + a] + error
        innovation = apart - states[k, STILL + a]
        gain += _likelihood(innovation, total)
        states[k, STILL + a] += states[k, STILL_VARIANCE + a] / total * innovation
        states[k, STILL_VARIANCE + a] *= error / total
        pv = states[k, PV + a]
        vv = states[k, VV + a]
        pp = states[k, PP + a] + dt * (2.0 * pv + dt * vv) + 2.0 * step_rate[a] * dt
        pv += dt * vv
        total = pp + error
        innovation = apart - states[k, PLACE + a] - dt * states[k, SPEED + a]
        gain -= _likelihood(innovation, total)
        states[k, PLACE + a] += dt * states[k, SPEED + a] + pp / total * innovation
        states[k, SPEED + a] += pv / total * innovation
        states[k, PP + a] = pp * error / total
        states[k, PV + a] = pv * error / total
        states[k, VV + a] = max(vv - pv * pv / total, 0.0)
    ratio = states[k, RATIO] + min(max(gain, -LARGEST_STEP), LARGEST_STEP)
    states[k, RATIO] = min(max(ratio, -SUREST), SUREST)


@njit(cache=True, nogil=True, error_model="numpy")
def choose(table, rows, frame, points, row_of, origins, searched):  # type: ignore[no-untyped-def]
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
def merge(  # type: ignore[no-untyped-def]
    table, time_s, row_of, searched, wanted, indptr, indices,
    names, states, pairs, new_names, new_states,
):  # fmt: skip
    """Merge the known pairs with the neighbours found, both in order of (older, younger); returns their number."""
    at = 0
    size = 0
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
            while at < pairs and (
                names[at, OLDER] < older or (names[at, OLDER] == older and names[at, YOUNGER] < younger)
            ):
                new_names[size, :] = names[at, :]
                new_states[size, :] = states[at, :]
                size += 1
                at += 1
            if at < pairs and names[at, OLDER] == older and names[at, YOUNGER] == younger:
                continue
            new_names[size, OLDER] = older
            new_names[size, YOUNGER] = younger
            new_names[size, LOSER] = -1
            new_states[size, COMMON] = 0.0
            new_states[size, RATIO] = 0.0
            new_states[size, TIME] = time_s
            size += 1
    while at < pairs:
        new_names[size, :] = names[at, :]
        new_states[size, :] = states[at, :]
        size += 1
        at += 1
    return size


@njit(cache=True, nogil=True, error_model="numpy")
def flag(table, rows, names, pairs):  # type: ignore[no-untyped-def]
    """Set the flag of the tracks that lost; returns their number."""
    flagged = 0
    for k in range(pairs):
        if names[k, LOSER] < 0:
            continue
        i = _row_of(table, rows, names[k, LOSER])
        if i >= 0 and (int(table[FLAGS, i]) & int(SECOND_DETECTION)) == 0:
            table[FLAGS, i] += SECOND_DETECTION
            flagged += 1
    return flagged
