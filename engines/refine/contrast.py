"""The contrast of images and their median, each in one pass over the pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from engines.refine.arguments import Float32Array


@njit(cache=True, nogil=True)
def fill_contrast(image: npt.NDArray[Any], factor: float, offset: float, out: Float32Array) -> None:
    """Fill `out` (H, W) with `factor` times the `image` (H, W) less an `offset`, in single precision."""
    times, less = np.float32(factor), np.float32(offset)
    for row in range(image.shape[0]):
        line, filled = image[row], out[row]
        for column in range(image.shape[1]):
            filled[column] = np.float32(line[column]) * times - less


def median_of(values: npt.NDArray[Any]) -> float:
    """The median of an array; of one or two bytes from how often each value is there, which is faster."""
    if values.dtype.kind != "u" or values.dtype.itemsize > 2:
        return float(np.median(values))
    below = np.cumsum(np.bincount(values.ravel()))
    low, high = np.searchsorted(below, [(values.size - 1) // 2, values.size // 2], side="right")
    return float(0.5 * (low + high))


def level_of(values: npt.NDArray[Any]) -> float:
    """The median of counts, between two of them as their numbers say: that of few photons is coarse."""
    middle = median_of(values)
    if values.dtype.kind != "u":
        return middle
    below, at = float((values < middle).mean()), float((values == middle).mean())
    return middle if at == 0.0 else middle - 0.5 + (0.5 - below) / at
