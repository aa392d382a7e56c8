"""Adds up the displacements of the tracks that a look at diffusion follows, frame by frame.

A look gives each track one row of sums (`FIELDS`): all that D of the track with its velocity removed needs
(`tracking.physics.live.diffusion_of_looks`), whatever the times of its displacements.
"""

from __future__ import annotations

import math
from typing import Any

from numba import njit

AXES = 3
SQUARES, PRODUCTS, MOVED, WEIGHTED, CROSSED, PLACES = 0, 3, 6, 9, 12, 15
COUNT, TOTAL, TIMES_SQUARED, TIMES_PRODUCT = 18, 19, 20, 21
FIRST, SECOND, LAST_BUT_ONE, LAST = 22, 23, 24, 25
AT, STEP = 26, 30
FIELDS = 34
"""Of displacements d over times u: for each axis the sums of d^2, d_i d_i+1, d, d u, d_i u_i+1 + d_i+1 u_i and of
the middles of the two positions; their number n; the sums of u, u^2 and u_i u_i+1; the times at the ends; where the
track was last (x, y, height, time), and its last displacement and time."""


@njit(cache=True, nogil=True, error_model="numpy")
def add_frame(now: Any, rows: Any) -> None:
    """Add where tracks are, `now` (N, 4): x, y, height and time, NaN where not known, to their sums, the first N of
    `rows` (room, `FIELDS`), which are NaN for those that have not begun.

    A track that misses frames has moved over a longer time; one whose time has not moved on is only noted where it
    is.
    """
    for new in range(len(now)):
        if math.isnan(now[new, AXES]):
            continue
        row = rows[new]
        if math.isnan(row[AT + AXES]):
            row[:] = 0.0
        else:
            _add(row, now[new])
        for axis in range(AXES + 1):
            row[AT + axis] = now[new, axis]


@njit(cache=True, nogil=True, error_model="numpy")
def _add(row: Any, now: Any) -> None:
    """Add the displacement from where the track was."""
    u, earlier_u = now[AXES] - row[AT + AXES], row[STEP + AXES]
    moved = u > 0
    for axis in range(AXES):
        d, earlier = now[axis] - row[AT + axis], row[STEP + axis]
        row[STEP + axis] = d
        if moved:
            row[SQUARES + axis] += d * d
            row[PRODUCTS + axis] += d * earlier
            row[MOVED + axis] += d
            row[WEIGHTED + axis] += d * u
            row[CROSSED + axis] += d * earlier_u + earlier * u
            row[PLACES + axis] += row[AT + axis] + 0.5 * d
    row[STEP + AXES] = u
    if not moved:
        return
    row[COUNT] += 1.0
    row[TOTAL] += u
    row[TIMES_SQUARED] += u * u
    row[TIMES_PRODUCT] += u * earlier_u
    if row[COUNT] == 1.0:
        row[FIRST] = u
    elif row[COUNT] == 2.0:
        row[SECOND] = u
    row[LAST_BUT_ONE] = row[LAST]
    row[LAST] = u
