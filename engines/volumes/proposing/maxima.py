"""Local maxima of a filtered volume, and shoulders: particles beside a brighter one that have no maximum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

HALO = 2
"""Rows beside a band that the search needs: a shoulder is a maximum of second differences."""


@njit(cache=True, nogil=True)
def local_maxima(
    field: Float32Array, first: int, start: int, stop: int, threshold: float, found: FloatArray, count: int
) -> int:
    """Add the maxima above `threshold` in the rows `start` to `stop` of a volume to `found` (4, M): x, y, z, value.

    `field` (Z, B, W) holds the rows from `first` on. A maximum is above its 26 neighbours, as far as there are some
    (of equal ones the first). Returns how many are in `found` now; those for which there is no room are counted
    as well.
    """
    depth, band, width = field.shape
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


@njit(cache=True, nogil=True)
def shoulders(
    field: Float32Array,
    first: int,
    start: int,
    stop: int,
    weights: FloatArray,
    least: float,
    least_curvature: float,
    found: FloatArray,
    count: int,
) -> int:
    """Add maxima of the curvature, where the field is above `least`, to `found`, as `local_maxima` does.

    The curvature is minus the sum of second differences times `weights` (z, y, x), which sharpens the field: two
    particles too near each other for two maxima of the field have two of it. Needs `HALO` rows beside
    `start` and `stop` in `field` where the volume has them.
    """
    depth, band, width = field.shape
    for row in range(start, stop):
        j = row - first
        for k in range(depth):
            for i in range(width):
                value = field[k, j, i]
                if value < least:
                    continue
                here = _curvature(field, k, j, i, weights)
                if here < least_curvature or not _is_sharpest(field, k, j, i, weights, here):
                    continue
                if count < found.shape[1]:
                    found[0, count] = i
                    found[1, count] = row
                    found[2, count] = k
                    found[3, count] = value
                count += 1
    return count


@njit(cache=True, nogil=True, inline="always")
def _bent(before: float, here: float, after: float) -> float:
    return 2 * here - before - after


@njit(cache=True, nogil=True)
def _curvature(field: Float32Array, k: int, j: int, i: int, weights: FloatArray) -> float:
    """Minus the weighted sum of second differences; at an end the neighbour inside stands for both."""
    depth, band, width = field.shape
    here = field[k, j, i]
    total = 0.0
    if depth > 1:
        total += weights[0] * _bent(
            field[k - 1 if k > 0 else 1, j, i], here, field[k + 1 if k + 1 < depth else k - 1, j, i]
        )
    if band > 1:
        total += weights[1] * _bent(
            field[k, j - 1 if j > 0 else 1, i], here, field[k, j + 1 if j + 1 < band else j - 1, i]
        )
    if width > 1:
        total += weights[2] * _bent(
            field[k, j, i - 1 if i > 0 else 1], here, field[k, j, i + 1 if i + 1 < width else i - 1]
        )
    return total


@njit(cache=True, nogil=True)
def _is_sharpest(field: Float32Array, k: int, j: int, i: int, weights: FloatArray, here: float) -> bool:
    depth, band, width = field.shape
    for dk in range(-1, 2):
        if k + dk < 0 or k + dk >= depth:
            continue
        for dj in range(-1, 2):
            if j + dj < 0 or j + dj >= band:
                continue
            for di in range(-1, 2):
                if (dk == 0 and dj == 0 and di == 0) or i + di < 0 or i + di >= width:
                    continue
                other = _curvature(field, k + dk, j + dj, i + di, weights)
                before = dk < 0 or (dk == 0 and (dj < 0 or (dj == 0 and di < 0)))
                if other > here or (before and other == here):
                    return False
    return True
