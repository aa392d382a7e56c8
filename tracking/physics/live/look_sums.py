"""Adds up the displacements of the tracks that a look at diffusion follows, frame by frame.

A look gives each track one row of sums (`FIELDS`): all that D of the track with its velocity removed needs
(`tracking.physics.live.diffusion_of_looks`), whatever the times of its displacements.
"""

from __future__ import annotations

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
def add_frame(before_names: Any, before: Any, names: Any, now: Any, rows: Any) -> None:
    """The sums `rows` (N, `FIELDS`) of the tracks `names` (N,) that were at `now` (4, N): x, y, height and time.

    `before_names` and `before` are those of the frame before. Both names are in order. A track that was not there
    begins; one whose time has not moved on is only noted where it is.
    """
    old = 0
    for new in range(names.size):
        while old < before_names.size and before_names[old] < names[new]:
            old += 1
        row = rows[new]
        if old < before_names.size and before_names[old] == names[new]:
            row[:] = before[old]
            _add(row, now, new)
        else:
            row[:] = 0.0
        for axis in range(AXES + 1):
            row[AT + axis] = now[axis, new]


@njit(cache=True, nogil=True, error_model="numpy")
def _add(row: Any, now: Any, new: int) -> None:
    """Add the displacement from where the track was."""
    u, earlier_u = now[AXES, new] - row[AT + AXES], row[STEP + AXES]
    moved = u > 0
    for axis in range(AXES):
        d, earlier = now[axis, new] - row[AT + axis], row[STEP + axis]
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
