"""Neighbours in the plane: rows of a table in the squares of a grid, as chains."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def chains(rows: Any, side: float) -> tuple[Any, Any, Any]:
    """Chains of the rows (N, columns; x and y first, N > 0) in each square of a grid.

    Returns the square (N, 2) of each row, from 1 so that all have neighbours, the first row of each square, and the
    row that follows each in its square (N,); -1: none.
    """
    low_x, low_y, high_x, high_y = rows[0, 0], rows[0, 1], rows[0, 0], rows[0, 1]
    # in place of `min` and `max`, which take numba longer to compile than this
    for n in range(1, rows.shape[0]):
        low_x, high_x = min(low_x, rows[n, 0]), max(high_x, rows[n, 0])
        low_y, high_y = min(low_y, rows[n, 1]), max(high_y, rows[n, 1])
    first = np.full((int((high_y - low_y) / side) + 3, int((high_x - low_x) / side) + 3), -1)
    square = np.empty((rows.shape[0], 2), np.int64)
    following = np.full(rows.shape[0], -1)
    for n in range(rows.shape[0] - 1, -1, -1):
        j, i = int((rows[n, 1] - low_y) / side) + 1, int((rows[n, 0] - low_x) / side) + 1
        square[n, 0], square[n, 1] = j, i
        following[n] = first[j, i]
        first[j, i] = n
    return square, first, following
