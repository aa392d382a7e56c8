"""The matched filter of a volume: how significant a spot at each voxel would be, and where that is largest.

For white noise of variance v and a spot of known shape g, no linear filter finds it better than
d = sum(g (I - b)) / sqrt(v sum(g^2)) (Turin 1960); d^2 / 2 is the log-likelihood ratio of "spot" over "none".
Noise of a background that varies slowly is white where each value is divided by its own standard deviation.
Sums are over the voxels that there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from engines.volumes.proposing.filters import across_rows, along_row, coarse_row

Float32Array = npt.NDArray[np.float32]


@njit(cache=True, nogil=True)
def strengths(
    image: npt.NDArray[Any],
    missing: npt.NDArray[np.bool_],
    first: int,
    background: Float32Array,
    spread: Float32Array,
    cell_px: int,
    half_z: Float32Array,
    half_y: Float32Array,
    half_x: Float32Array,
    scale_z: Float32Array,
    scale_y: Float32Array,
    scale_x: Float32Array,
    rows: Float32Array,
    out: Float32Array,
) -> None:
    """Fill `out` (Z, B, W) with the filter's answer for B rows, all inside, from row `first` of `image` (Z, H, W).

    `background` and `spread` are coarse grids (Z, h, w) of cells of `cell_px`: grey values, and the inverse of
    the noise's standard
    deviation. `half_*` are halves of kernels, `scale_*` the factors for each slice, row and column. `rows` is a
    buffer of at least (B + 2 * reach along y, W).
    """
    depth, height, width = image.shape
    band = out.shape[1]
    reach_x, reach_y = half_x.size - 1, half_y.size - 1
    padded = np.zeros(width + 2 * reach_x, np.float32)
    line = np.empty(width, np.float32)
    top = max(0, first - reach_y)
    bottom = min(height, first + band + reach_y)
    for k in range(depth):
        if missing[k]:
            out[k] = 0
            continue
        for row in range(top, bottom):
            coarse_row(background[k], cell_px, row, line)
            source = image[k, row]
            for i in range(width):
                padded[reach_x + i] = np.float32(source[i]) - line[i]
            along_row(padded, half_x, rows[row - top])
        for row in range(band):
            across_rows(rows[: bottom - top], first + row - top, half_y, out[k, row], False)
    stack = np.empty((depth, width), np.float32)
    for row in range(band):
        for k in range(depth):
            stack[k] = out[k, row]
        for k in range(depth):
            across_rows(stack, k, half_z, out[k, row], False)
            coarse_row(spread[k], cell_px, first + row, line)
            factor = scale_z[k] * scale_y[first + row]
            target = out[k, row]
            for i in range(width):
                target[i] *= factor * scale_x[i] * line[i]
