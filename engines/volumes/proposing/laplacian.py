"""The Laplacian of Gaussian of a volume, band by band, in standard deviations of its noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from engines.volumes.proposing.filters import across_rows, along_row, coarse_row

Float32Array = npt.NDArray[np.float32]

LEAST_POWER = 1e-9


@njit(cache=True, nogil=True)
def laplacians(
    image: npt.NDArray[Any],
    missing: npt.NDArray[np.bool_],
    first: int,
    background: Float32Array,
    spread: Float32Array,
    cell_px: int,
    gauss_z: Float32Array,
    gauss_y: Float32Array,
    gauss_x: Float32Array,
    curved_z: Float32Array,
    curved_y: Float32Array,
    curved_x: Float32Array,
    power_z: Float32Array,
    power_y: Float32Array,
    power_x: Float32Array,
    rows: Float32Array,
    planes: Float32Array,
    out: Float32Array,
) -> None:
    """Fill `out` (Z, B, W) with the answer for B rows, all inside, from row `first` of `image` (Z, H, W).

    `background` and `spread` are coarse grids (Z, h, w) of cells of `cell_px`: grey values, and the inverse of the
    noise's standard deviation. Kernels are halves of Gaussians and of their second derivatives; `power_*` (3, N)
    the sums of their squares and products over the voxels that there are: Gaussian, both, derivative. `rows` is a
    buffer (2, R, W) of at least B + 2 * reach along y rows, `planes` one of at least (Z, B, W).
    """
    depth, height, width = image.shape
    band = out.shape[1]
    reach_x = max(gauss_x.size, curved_x.size) - 1
    reach_y = max(gauss_y.size, curved_y.size) - 1
    padded = np.zeros(width + 2 * reach_x, np.float32)
    inner = padded[reach_x - (gauss_x.size - 1) :]
    line = np.empty(width, np.float32)
    top = max(0, first - reach_y)
    bottom = min(height, first + band + reach_y)
    for k in range(depth):
        if missing[k]:
            out[k] = 0
            planes[k, :band] = 0
            continue
        for row in range(top, bottom):
            coarse_row(background[k], cell_px, row, line)
            source = image[k, row]
            for i in range(width):
                padded[reach_x + i] = np.float32(source[i]) - line[i]
            along_row(inner, gauss_x, rows[0, row - top])
            along_row(padded, curved_x, rows[1, row - top])
        smooth, bent = rows[0, : bottom - top], rows[1, : bottom - top]
        for row in range(band):
            centre = first + row - top
            across_rows(smooth, centre, gauss_y, out[k, row], False)
            across_rows(smooth, centre, curved_y, planes[k, row], False)
            across_rows(bent, centre, gauss_y, planes[k, row], True)
    stack, flat = np.empty((depth, width), np.float32), np.empty((depth, width), np.float32)
    for row in range(band):
        for k in range(depth):
            flat[k] = out[k, row]
            stack[k] = planes[k, row]
        j = first + row
        for k in range(depth):
            target = out[k, row]
            across_rows(flat, k, curved_z, target, False)
            across_rows(stack, k, gauss_z, target, True)
            coarse_row(spread[k], cell_px, j, line)
            gz, mz, cz = power_z[0, k], power_z[1, k], power_z[2, k]
            gy, my, cy = power_y[0, j], power_y[1, j], power_y[2, j]
            of_gauss = cz * gy + gz * cy + np.float32(2) * mz * my
            of_both = np.float32(2) * (mz * gy + gz * my)
            of_curved = gz * gy
            for i in range(width):
                power = of_gauss * power_x[0, i] + of_both * power_x[1, i] + of_curved * power_x[2, i]
                target[i] *= line[i] / np.float32(math.sqrt(max(power, np.float32(LEAST_POWER))))
