"""Pairs of close tracks: two filters each, of a difference that stands still and of one that moves; the verdict.

A pair is a column. `names` (3, pairs): track numbers of the older and the younger, and of the one that is flagged
(-1 for none). `states` (20, pairs): the log-likelihood ratio, when both were last seen, how often, when first; the
first difference (2); the still one and its variance (2 each); the moving one's place and speed (2 each) and their
covariance (pp, pv, vv; 2 each). All in um and s; pairs are in order of (older, younger).
"""

from __future__ import annotations

import math

from numba import njit

from tracking.kalman import AGE, CONFIDENCE, DETECTION, FLAGS, SIGMA, TRACK, X

DUPLICATE = 2.0
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
        i = _row_of(table, rows, names[OLDER, k])
        j = _row_of(table, rows, names[YOUNGER, k])
        if i < 0 or j < 0:
            continue
        if table[DETECTION, i] >= 0.0 and table[DETECTION, j] >= 0.0:
            dx = table[X, j] - table[X, i]
            dy = table[X + 1, j] - table[X + 1, i]
            if dx * dx + dy * dy > part_um * part_um:
                continue
            dt = time_s - states[TIME, k]
            if states[COMMON, k] == 0.0:
                _start(table, states, k, i, j, time_s, spread, box, shape)
            else:
                _learn(table, states, k, i, j, dt, step_rate)
            states[TIME, k] = time_s
            states[COMMON, k] += 1.0
            same = states[RATIO, k] >= SURE
            other = states[RATIO, k] <= -SURE
            if by_displacement:
                frames = (time_s - states[FIRST_TIME, k]) / frame_s if frame_s > 0.0 else 0.0
                moved = math.hypot(dx - states[FIRST, k], dy - states[FIRST + 1, k])
                enough = states[COMMON, k] >= FEWEST_COMMON and frames > 0.0
                same = enough and moved < least_um * frames
                other = not same
            if other:
                names[LOSER, k] = -1
            elif same and names[LOSER, k] < 0:
                names[LOSER, k] = _loser(table, i, j)
        if kept != k:
            for row in range(NAMES):
                names[row, kept] = names[row, k]
            for row in range(STATES):
                states[row, kept] = states[row, k]
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
    states[RATIO, k] = 0.0
    states[FIRST_TIME, k] = time_s
    for a in range(2):
        apart = table[X + a, j] - table[X + a, i]
        error = table[SIGMA + a, i] ** 2 + table[SIGMA + a, j] ** 2
        states[FIRST + a, k] = apart
        states[STILL + a, k] = apart
        states[STILL_VARIANCE + a, k] = error
        states[PLACE + a, k] = apart
        states[SPEED + a, k] = 0.0
        states[PP + a, k] = error
        states[PV + a, k] = 0.0
        states[VV + a, k] = 2.0 * spread[column, a]


@njit(cache=True, nogil=True, error_model="numpy")
def _learn(table, states, k, i, j, dt, step_rate):  # type: ignore[no-untyped-def]
    """Add the log-likelihood ratio of one more difference (still over moving), and correct both filters."""
    gain = 0.0
    for a in range(2):
        apart = table[X + a, j] - table[X + a, i]
        error = table[SIGMA + a, i] ** 2 + table[SIGMA + a, j] ** 2
        total = states[STILL_VARIANCE + a, k] + error
        innovation = apart - states[STILL + a, k]
        gain += _likelihood(innovation, total)
        states[STILL + a, k] += states[STILL_VARIANCE + a, k] / total * innovation
        states[STILL_VARIANCE + a, k] *= error / total
        pv = states[PV + a, k]
        vv = states[VV + a, k]
        pp = states[PP + a, k] + dt * (2.0 * pv + dt * vv) + 2.0 * step_rate[a] * dt
        pv += dt * vv
        total = pp + error
        innovation = apart - states[PLACE + a, k] - dt * states[SPEED + a, k]
        gain -= _likelihood(innovation, total)
        states[PLACE + a, k] += dt * states[SPEED + a, k] + pp / total * innovation
        states[SPEED + a, k] += pv / total * innovation
        states[PP + a, k] = pp * error / total
        states[PV + a, k] = pv * error / total
        states[VV + a, k] = max(vv - pv * pv / total, 0.0)
    ratio = states[RATIO, k] + min(max(gain, -LARGEST_STEP), LARGEST_STEP)
    states[RATIO, k] = min(max(ratio, -SUREST), SUREST)


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
                names[OLDER, at] < older or (names[OLDER, at] == older and names[YOUNGER, at] < younger)
            ):
                new_names[:, size] = names[:, at]
                new_states[:, size] = states[:, at]
                size += 1
                at += 1
            if at < pairs and names[OLDER, at] == older and names[YOUNGER, at] == younger:
                continue
            new_names[OLDER, size] = older
            new_names[YOUNGER, size] = younger
            new_names[LOSER, size] = -1
            new_states[COMMON, size] = 0.0
            new_states[RATIO, size] = 0.0
            new_states[TIME, size] = time_s
            size += 1
    while at < pairs:
        new_names[:, size] = names[:, at]
        new_states[:, size] = states[:, at]
        size += 1
        at += 1
    return size


@njit(cache=True, nogil=True, error_model="numpy")
def flag(table, rows, names, pairs):  # type: ignore[no-untyped-def]
    """Set the flag of the tracks that lost; returns their number."""
    flagged = 0
    for k in range(pairs):
        if names[LOSER, k] < 0:
            continue
        i = _row_of(table, rows, names[LOSER, k])
        if i >= 0 and (int(table[FLAGS, i]) & int(DUPLICATE)) == 0:
            table[FLAGS, i] += DUPLICATE
            flagged += 1
    return flagged
