"""Where between the voxels a maximum of a filtered volume lies, and how high it is there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]


@njit(cache=True, nogil=True)
def between_voxels(field: Float32Array, first: int, found: FloatArray) -> FloatArray:
    """The maxima (4, N), x, y, z and value, moved by up to half a voxel to the top of a parabola along each axis.

    `field` (Z, B, W) holds the rows from `first` on. At an end of the volume, and where the values beside it are
    larger, a maximum stays at its voxel.
    """
    out = found.copy()
    depth, band, width = field.shape
    for index in range(found.shape[1]):
        i, j, k = int(found[0, index]), int(found[1, index]) - first, int(found[2, index])
        here = field[k, j, i]
        if 0 < i < width - 1:
            out[0, index] += _top(field[k, j, i - 1], here, field[k, j, i + 1], out, index)
        if 0 < j < band - 1:
            out[1, index] += _top(field[k, j - 1, i], here, field[k, j + 1, i], out, index)
        if 0 < k < depth - 1:
            out[2, index] += _top(field[k - 1, j, i], here, field[k + 1, j, i], out, index)
    return out


@njit(cache=True, nogil=True)
def _top(before: float, here: float, after: float, out: FloatArray, index: int) -> float:
    """How far the top of a parabola is from the middle one of three values; adds what it is higher to row 3."""
    if here < before or here < after:
        return 0.0
    curved = 2 * here - before - after
    if curved <= 0:
        return 0.0
    slope = 0.5 * (after - before)
    out[3, index] += 0.5 * slope * slope / curved
    return slope / curved
