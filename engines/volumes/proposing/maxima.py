"""Local maxima of a filtered volume."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

HALO = 1
"""Rows beside a band that the search needs."""


@njit(cache=True, nogil=True)
def local_maxima(
    field: Float32Array, first: int, start: int, stop: int, threshold: float, found: FloatArray, count: int
) -> int:
    """Add the maxima above `threshold` in the rows `start` to `stop` of a volume to `found` (4, M): x, y, z, value.

    `field` (Z, B, W) holds the rows from `first` on. A maximum is above its 26 neighbours, as far as there are some
    (of equal ones the first). Returns how many are in `found` now; those for which there is no room are counted
    as well.
    """
    depth, _, width = field.shape
    for row in range(start, stop):
        j = row - first
        for k in range(depth):
            line = field[k, j]
            for i in range(width):
                value = line[i]
                if value > threshold and _is_maximum(field, k, j, i, value):
                    if count < found.shape[1]:
                        found[0, count] = i
                        found[1, count] = row
                        found[2, count] = k
                        found[3, count] = value
                    count += 1
    return count


@njit(cache=True, nogil=True)
def _is_maximum(field: Float32Array, k: int, j: int, i: int, value: float) -> bool:
    depth, band, width = field.shape
    if i > 0 and field[k, j, i - 1] >= value:
        return False
    if i + 1 < width and field[k, j, i + 1] > value:
        return False
    for dk in range(-1, 2):
        if k + dk < 0 or k + dk >= depth:
            continue
        for dj in range(-1, 2):
            if (dk == 0 and dj == 0) or j + dj < 0 or j + dj >= band:
                continue
            before = dk < 0 or (dk == 0 and dj < 0)
            for di in range(-1, 2):
                if i + di < 0 or i + di >= width:
                    continue
                other = field[k + dk, j + dj, i + di]
                if other > value or (before and other == value):
                    return False
    return True
