"""Follows what each track says of its velocity through a run: a row of numbers for each, in one pass over a frame.

What is added up is described in `tracking.physics.tracks.information`; here a track's numbers lie side by side.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from stream.messages import Tracks
from tracking.physics.tracks.information import (
    INFORMATION,
    LAG,
    MEAN,
    PLACE,
    ROWS,
    SCORE,
    VARIANCE,
    WEIGHT,
)

AXES = 3
FIRST_S = AXES * ROWS
LAST_S, DETECTIONS, FLAGS, DIFFUSION = FIRST_S + 1, FIRST_S + 2, FIRST_S + 3, FIRST_S + 4
FIELDS = DIFFUSION + 1
"""A track: number `row` of `axis` at `row * AXES + axis`; the time of its first and its last detection, their
number, the flags of the last one, and, once it is handed over, D by which it was followed."""
TRACK, X_UM, SIGMA_X_UM, OFFSET_S, ROW_FLAGS = (
    Tracks.COLUMNS.index(name) for name in ("track", "x_um", "sigma_x_um", "time_offset_s", "flags")
)
"""Rows of a message's table; positions, and their standard errors, along y and z follow those along x."""
SPREAD_OUT = 2654435761
"""Odd and near 2^32 over the golden ratio (Knuth, The Art of Computer Programming 3, 6.4): numbers in a row come
to lie far apart."""
NOTHING_HERE = -1


@njit(cache=True, nogil=True, error_model="numpy")
def _begin(track: Any, place: Any, variances: Any, time_s: float, flags: float) -> None:
    for axis in range(AXES):
        position, variance = place[axis], variances[axis]
        track[MEAN * AXES + axis] = position
        track[VARIANCE * AXES + axis] = variance
        track[LAG * AXES + axis] = 0.0
        track[INFORMATION * AXES + axis] = 0.0
        track[SCORE * AXES + axis] = 0.0
        track[WEIGHT * AXES + axis] = 1.0 / variance
        track[PLACE * AXES + axis] = position / variance
    track[FIRST_S] = track[LAST_S] = time_s
    track[DETECTIONS], track[FLAGS] = 1.0, flags


@njit(cache=True, nogil=True, error_model="numpy")
def _go_on(
    track: Any, place: Any, variances: Any, time_s: float, flags: float, diffusion_um2_s: float
) -> None:
    dt_s = time_s - track[LAST_S]
    for axis in range(AXES):
        position, variance = place[axis], variances[axis]
        moved = track[LAG * AXES + axis] + dt_s
        predicted = track[VARIANCE * AXES + axis] + 2.0 * diffusion_um2_s * dt_s
        innovation = position - track[MEAN * AXES + axis]
        share = 1.0 / (predicted + variance)
        gain = predicted * share
        track[INFORMATION * AXES + axis] += moved * moved * share
        track[SCORE * AXES + axis] += moved * innovation * share
        track[MEAN * AXES + axis] += gain * innovation
        track[LAG * AXES + axis] = (1.0 - gain) * moved
        track[VARIANCE * AXES + axis] = gain * variance
        weight = 1.0 / variance
        track[WEIGHT * AXES + axis] += weight
        track[PLACE * AXES + axis] += position * weight
    track[LAST_S] = time_s
    track[DETECTIONS] += 1.0
    track[FLAGS] = flags


@njit(cache=True, nogil=True, error_model="numpy")
def place_of_name(name: int, names: Any, places: Any) -> int:
    """Where in `places` (2^n,) the index of this track in `names` is, or is to be put."""
    last: int = places.size - 1
    at = (name * SPREAD_OUT) & last
    while places[at] != NOTHING_HERE and names[places[at]] != name:
        at = (at + 1) & last
    return at


@njit(cache=True, nogil=True, error_model="numpy")
def follow_frame(
    names: Any,
    tracks: Any,
    count: int,
    table: Any,
    frame_s: float,
    focus_um: float,
    factor: float,
    diffusion_um2_s: float,
    longest_s: float,
    left_out: int,
    done_names: Any,
    done: Any,
    done_count: int,
    places: Any,
    seen: Any,
) -> tuple[int, int]:
    """Take in a frame; how many tracks there are then, and how many have been handed over.

    `names` and `tracks` (room, `FIELDS`) are those alive, the first `count`. `table` (columns, N) are the frame's
    rows at the time `frame_s` and the height `factor` times (`focus_um` + z); those with flags in `left_out`,
    without a position or a standard error count as predictions: the track goes on, no more. Tracks without a row
    are over; they, and what tracks older than `longest_s` were so far, are appended to `done_names` and `done`, of
    which `done_count` are there. `places`, 2^n numbers, and `seen` (room,) are scratch. There is room for N more
    tracks, and for all of them in `done`.
    """
    position, variances = np.empty(AXES), np.empty(AXES)
    places[:] = NOTHING_HERE
    for at in range(count):
        places[place_of_name(names[at], names, places)] = at
        seen[at] = False
    for row in range(table.shape[1]):
        name, flags = int(table[TRACK, row]), table[ROW_FLAGS, row]
        place = place_of_name(name, names, places)
        at = places[place]
        if at != NOTHING_HERE:
            seen[at] = True
        fit = (int(flags) & left_out) == 0
        for axis in range(AXES):
            position[axis], sigma = table[X_UM + axis, row], table[SIGMA_X_UM + axis, row]
            if axis == AXES - 1:
                position[axis] = factor * (focus_um + position[axis])
                sigma *= factor
            variances[axis] = sigma**2
            fit = fit and math.isfinite(position[axis]) and math.isfinite(sigma) and sigma > 0.0
        if not fit:
            continue
        offset_s = table[OFFSET_S, row]
        time_s = frame_s + (offset_s if math.isfinite(offset_s) else 0.0)
        if at == NOTHING_HERE:
            places[place] = count
            names[count], seen[count] = name, True
            _begin(tracks[count], position, variances, time_s, flags)
            count += 1
        elif time_s > tracks[at, LAST_S]:
            _go_on(tracks[at], position, variances, time_s, flags, diffusion_um2_s)
            if time_s - tracks[at, FIRST_S] >= longest_s:
                done_count = _hand_over(names[at], tracks[at], diffusion_um2_s, done_names, done, done_count)
                _begin(tracks[at], position, variances, time_s, flags)
    at = 0
    while at < count:
        if seen[at]:
            at += 1
            continue
        done_count = _hand_over(names[at], tracks[at], diffusion_um2_s, done_names, done, done_count)
        count -= 1  # the last one takes its place
        if at != count:
            names[at], seen[at] = names[count], seen[count]
            tracks[at] = tracks[count]
    return count, done_count


@njit(cache=True, nogil=True, error_model="numpy")
def _hand_over(
    name: int, track: Any, diffusion_um2_s: float, done_names: Any, done: Any, done_count: int
) -> int:
    done_names[done_count] = name
    done[done_count] = track
    done[done_count, DIFFUSION] = diffusion_um2_s
    return done_count + 1
