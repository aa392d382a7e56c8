"""Noise of single pixels, measured independently of what the image shows."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

# Of the differences between whole grey values more than this part is zero where the noise is about half a grey
# value or less; noise then reaches to so many times the usual size of the others.
QUANTISED_PART = 0.3
QUANTISED_REACH = 4.0
ZERO_PART = 1e-6


@njit(cache=True, nogil=True)
def pixel_noise(image: Float32Array, stride: int) -> float:
    """Return the standard deviation of independent pixel noise, from 2 x 2 differences clipped at 3 sigma.

    If most differences are zero (noise of less than a grey value, single counts in the dark), clipping would keep
    only the zeros; there, all differences of a few grey values count as noise.
    """
    height, width = image.shape
    across = width // 2
    number = (height // 2) * across
    values = np.empty(number // stride)
    count = 0
    for square in range(stride - 1, number, stride):
        row, column = 2 * (square // across), 2 * (square % across)
        values[count] = 0.5 * (
            image[row, column] - image[row, column + 1] - image[row + 1, column] + image[row + 1, column + 1]
        )
        count += 1
    least = _quantised_reach(values[:count])
    limit = np.inf
    sigma = 0.0
    for _ in range(6):
        total = 0.0
        kept = 0
        for value in values[:count]:
            if abs(value) < limit:
                total += value * value
                kept += 1
        # 0.9866 is what clipping at 3 sigma leaves of a normal distribution's standard deviation.
        sigma = math.sqrt(total / max(1, kept)) / (0.9866 if least < limit < np.inf else 1.0)
        if sigma == 0:
            break
        limit = max(3 * sigma, least)
    return sigma


@njit(cache=True, nogil=True)
def _quantised_reach(differences: FloatArray) -> float:
    """Return how far noise of less than about half a grey value reaches; 0 where there is more noise, or none."""
    sizes = np.abs(differences)
    if sizes.size == 0:
        return 0.0
    other = sizes[sizes > ZERO_PART * sizes.max()]
    if other.size == 0 or sizes.size - other.size <= QUANTISED_PART * sizes.size:
        return 0.0
    return float(QUANTISED_REACH * np.median(other))
