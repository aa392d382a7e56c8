"""Separable filters of a volume, one pass an axis, in bands of rows: no array as large as the volume is needed.

The filtered value is a sum over the voxels that there are: outside of the volume and in missing slices nothing is
added, and a factor for each slice, row and column says what the sum is then worth.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

REACH = 3.2
"""Standard deviations at which a Gaussian kernel is cut off: there it is 0.6 % of its peak, and a matched filter
loses less than 1e-4 of its signal. The cost of a pass is proportional to it."""
LONGEST = 200
"""Longest half of a kernel, voxels; spots of more than 60 voxels are no points."""


def gaussian_half(sigma: float) -> Float32Array:
    """The right half of a Gaussian sampled at the voxel centres, peak 1, centre first."""
    reach = min(LONGEST, max(1, int(np.ceil(REACH * sigma))))
    return np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2).astype(np.float32)


def curved_half(sigma: float) -> Float32Array:
    """The right half of minus the second derivative of a Gaussian times sigma^2, of zero sum, centre first.

    The sampled one sums to zero only where sigma is large; what is left is taken off in proportion to the Gaussian,
    so that a constant background gives no answer.
    """
    reach = min(LONGEST, max(1, int(np.ceil((REACH + 1) * sigma))))
    r = np.arange(reach + 1) / sigma
    gauss = np.exp(-0.5 * r**2)
    curved = (1 - r**2) * gauss
    rest = (2 * curved.sum() - curved[0]) / (2 * gauss.sum() - gauss[0])
    return np.asarray(curved - rest * gauss, np.float32)


def products(first: Float32Array, second: Float32Array, present: npt.NDArray[np.bool_]) -> FloatArray:
    """Sum of two kernels' products over the voxels that are `present` (N,), for kernels centred on each (halves)."""
    size = min(first.size, second.size)
    half = first[:size].astype(np.float64) * second[:size]
    inside = np.convolve(present.astype(np.float64), np.concatenate([half[:0:-1], half]))
    return np.asarray(inside[size - 1 : size - 1 + present.size])


def worth(half: Float32Array, present: npt.NDArray[np.bool_]) -> FloatArray:
    """Sum of the squared weights that fall on voxels that are `present` (N,), for a kernel centred on each."""
    return products(half, half, present)


@njit(cache=True, nogil=True)
def coarse_row(grid: Float32Array, cell_px: int, row: int, out: Float32Array) -> None:
    """Fill `out` (W,) with a row of a coarse grid (h, w), straight between the centres of its cells."""
    height, width = grid.shape
    along = min(max((row + 0.5) / cell_px - 0.5, 0.0), height - 1.0)
    j0 = int(along)
    j1 = min(j0 + 1, height - 1)
    v = np.float32(along - j0)
    size = out.size
    last = grid[j0, 0] + v * (grid[j1, 0] - grid[j0, 0])
    first_end = min(size, int(0.5 * cell_px))
    for i in range(first_end):
        out[i] = last
    start = first_end
    for cell in range(1, width):
        value = grid[j0, cell] + v * (grid[j1, cell] - grid[j0, cell])
        end = min(size, int((cell + 0.5) * cell_px))
        slope = np.float32((value - last) / cell_px)
        base = np.float32(last + slope * (0.5 - (cell - 0.5) * cell_px))
        for i in range(start, end):
            out[i] = base + slope * np.float32(i)
        start = max(start, end)
        last = value
    for i in range(start, size):
        out[i] = last


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def along_row(padded: Float32Array, half: Float32Array, out: Float32Array) -> None:
    """Fill `out` (W,) with the correlation of a row with a symmetric kernel; the row is padded by its reach."""
    reach = half.size - 1
    size = out.size
    weight = half[0]
    for i in range(size):
        out[i] = weight * padded[reach + i]
    step = 1
    while step + 1 <= reach:
        first, second = half[step], half[step + 1]
        for i in range(size):
            out[i] += first * (padded[reach + i - step] + padded[reach + i + step]) + second * (
                padded[reach + i - step - 1] + padded[reach + i + step + 1]
            )
        step += 2
    if step <= reach:
        first = half[step]
        for i in range(size):
            out[i] += first * (padded[reach + i - step] + padded[reach + i + step])


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def across_rows(rows: Float32Array, centre: int, half: Float32Array, out: Float32Array, keep: bool) -> None:
    """Fill `out` (W,), or add to it, with the weighted sum of `rows` (N, W) around row `centre`; none outside."""
    count, size = rows.shape
    weight = half[0]
    if 0 <= centre < count:
        line = rows[centre]
        if keep:
            for i in range(size):
                out[i] += weight * line[i]
        else:
            for i in range(size):
                out[i] = weight * line[i]
    elif not keep:
        for i in range(size):
            out[i] = 0
    for step in range(1, half.size):
        weight = half[step]
        above, below = centre - step, centre + step
        if above >= 0 and below < count:
            first, second = rows[above], rows[below]
            for i in range(size):
                out[i] += weight * (first[i] + second[i])
        elif above >= 0:
            first = rows[above]
            for i in range(size):
                out[i] += weight * first[i]
        elif below < count:
            second = rows[below]
            for i in range(size):
                out[i] += weight * second[i]
