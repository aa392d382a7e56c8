"""Spot-enhancing filter on a binned image: a difference of two Gaussians, each applied along rows and columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Float32Array = npt.NDArray[np.float32]

KERNEL_REACH = 2.5
"""Widths at which a Gaussian kernel is cut off; there it has fallen to 4 % of its peak. The cost of a filter is
proportional to it, and the kernel has unit sum wherever it is cut."""


def gaussian_kernel(sigma: float) -> Float32Array:
    """Return the right half, centre first, of a sampled Gaussian of unit sum."""
    reach = int(np.ceil(KERNEL_REACH * sigma))
    half = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    kernel: Float32Array = (half / (2 * half.sum() - half[0])).astype(np.float32)
    return kernel


@njit(cache=True, nogil=True)
def bin_image(image: Float32Array, binning: int, out: Float32Array) -> None:
    """Fill `out`, (H // b, W // b), with the means of b x b blocks."""
    height, width = out.shape
    scale = np.float32(1.0 / (binning * binning))
    for row in range(height):
        for column in range(width):
            out[row, column] = 0
        for inner in range(binning):
            source = image[row * binning + inner]
            for column in range(width):
                total = np.float32(0)
                for step in range(binning):
                    total += source[column * binning + step]
                out[row, column] += total * scale


@njit(cache=True, nogil=True, fastmath=True)
def _blur_rows(image: Float32Array, kernel: Float32Array, out: Float32Array) -> None:
    height, width = image.shape
    reach = kernel.size - 1
    padded = np.empty(width + 2 * reach, np.float32)
    for row in range(height):
        for column in range(reach):
            padded[column] = image[row, 0]
            padded[reach + width + column] = image[row, width - 1]
        for column in range(width):
            padded[reach + column] = image[row, column]
        line = out[row]
        weight = kernel[0]
        for column in range(width):
            line[column] = weight * padded[reach + column]
        for step in range(1, reach + 1):
            weight = kernel[step]
            for column in range(width):
                line[column] += weight * (padded[reach + column - step] + padded[reach + column + step])


@njit(cache=True, nogil=True, fastmath=True)
def _add_blurred_columns(
    image: Float32Array, kernel: Float32Array, factor: np.float32, out: Float32Array
) -> None:
    height, width = image.shape
    for row in range(height):
        line = out[row]
        weight = factor * kernel[0]
        for column in range(width):
            line[column] += weight * image[row, column]
        for step in range(1, kernel.size):
            weight = factor * kernel[step]
            above = image[max(0, row - step)]
            below = image[min(height - 1, row + step)]
            for column in range(width):
                line[column] += weight * (above[column] + below[column])


@njit(cache=True, nogil=True)
def difference_of_gaussians(
    image: Float32Array,
    kernel_x: Float32Array,
    kernel_y: Float32Array,
    surround_x: Float32Array,
    surround_y: Float32Array,
    narrow: Float32Array,
    wide: Float32Array,
    out: Float32Array,
) -> None:
    """Fill `out` with the narrow minus the wide Gaussian of `image`; edges are continued as they are."""
    _blur_rows(image, kernel_x, narrow)
    _blur_rows(image, surround_x, wide)
    out[:] = np.float32(0)
    _add_blurred_columns(narrow, kernel_y, np.float32(1), out)
    _add_blurred_columns(wide, surround_y, np.float32(-1), out)
