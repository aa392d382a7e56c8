"""The elliptical Gaussian on blocks of pixels: fit window, profiles, derivatives, normal equations.

The model is separable, so sums of products over the window are products of sums along the axes: only the
residual has to be visited pixel by pixel.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

X, Y, LN_SX, LN_SY, AMPLITUDE, OFFSET = range(6)
PARAMETERS = 6
SAMPLES_PER_SIGMA = 1.5
"""Blocks of pixels per width. More cost time with their square; fewer lose information, as blocks of a width or
more blur the image."""
WINDOW_SIGMAS = 3.0
"""Half width of the fit window, in widths: wide enough to measure the background, narrow enough to keep
neighbours out. A Gaussian has fallen to 1 % there."""
SMALLEST_HALF_PX = 3
"""Least half width of the window, px: with 7 x 7 samples six parameters are well determined."""
MAX_SAMPLES = 64
"""Most blocks along an axis, which sets the size of the buffers."""


@njit(cache=True, nogil=True)
def sample_grid(centre: float, sigma: float, size: int) -> tuple[int, int, int]:
    """Return first pixel, block length and number of blocks of a window along an axis of `size` pixels."""
    block = max(1, int(sigma / SAMPLES_PER_SIGMA))
    half = max(SMALLEST_HALF_PX, math.ceil(WINDOW_SIGMAS * sigma / block))
    half = min(half, MAX_SAMPLES // 2 - 1)
    first = math.floor(centre + 0.5) - (block // 2) - half * block
    count = 2 * half + 1
    if first < 0:
        skipped = (-first + block - 1) // block
        first += skipped * block
        count -= skipped
    count = min(count, (size - first) // block)
    return first, block, max(0, count)


@njit(cache=True, nogil=True, fastmath=True)
def bin_window(
    image: Float32Array, first_x: int, block_x: int, first_y: int, block_y: int, samples: FloatArray
) -> None:
    """Fill `samples` (rows, columns) with the means of the blocks of a window."""
    scale = 1.0 / (block_x * block_y)
    for j in range(samples.shape[0]):
        for i in range(samples.shape[1]):
            total = np.float32(0)
            for row in range(first_y + j * block_y, first_y + (j + 1) * block_y):
                for column in range(first_x + i * block_x, first_x + (i + 1) * block_x):
                    total += image[row, column]
            samples[j, i] = total * scale


@njit(cache=True, nogil=True)
def profiles(
    parameter: float,
    ln_sigma: float,
    first: int,
    block: int,
    count: int,
    value: FloatArray,
    by_centre: FloatArray,
    by_width: FloatArray,
) -> None:
    """Fill the profile along one axis, averaged over blocks, and its derivatives by centre and ln(width)."""
    sigma_squared = math.exp(2 * ln_sigma)
    variance = sigma_squared + (block * block - 1) / 12.0
    scale = math.sqrt(sigma_squared / variance)
    for index in range(count):
        distance = first + index * block + 0.5 * (block - 1) - parameter
        value[index] = scale * math.exp(-0.5 * distance * distance / variance)
        by_centre[index] = value[index] * distance / variance
        by_width[index] = value[index] * (
            distance * distance * sigma_squared / (variance * variance) + 1 - sigma_squared / variance
        )


@njit(cache=True, nogil=True)
def solve_spd(matrix: FloatArray, right: FloatArray, size: int) -> bool:
    """Solve a symmetric positive-definite system in place (`right` becomes the solution) by Cholesky."""
    for i in range(size):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            if i == j:
                if total <= 0:
                    return False
                matrix[i, i] = math.sqrt(total)
            else:
                matrix[i, j] = total / matrix[j, j]
    for i in range(size):
        total = right[i]
        for k in range(i):
            total -= matrix[i, k] * right[k]
        right[i] = total / matrix[i, i]
    for i in range(size - 1, -1, -1):
        total = right[i]
        for k in range(i + 1, size):
            total -= matrix[k, i] * right[k]
        right[i] = total / matrix[i, i]
    return True


@njit(cache=True, nogil=True, fastmath=True)
def normal_equations(
    samples: FloatArray,
    parameters: FloatArray,
    x_axis: FloatArray,
    y_axis: FloatArray,
    matrix: FloatArray,
    gradient: FloatArray,
) -> float:
    """Fill J'J and J'r for r = samples - model; return the sum of squares."""
    rows, columns = samples.shape
    amplitude = parameters[AMPLITUDE]
    offset = parameters[OFFSET]
    matrix[:] = 0
    gradient[:] = 0
    cost = 0.0
    # Per row, the sums over columns of products of (ex, dx, wx, 1, r); a row then adds an outer product.
    s_ee = s_ed = s_ew = s_e = s_dd = s_dw = s_d = s_ww = s_w = 0.0
    for i in range(columns):
        e, d, w = x_axis[0, i], x_axis[1, i], x_axis[2, i]
        s_ee += e * e
        s_ed += e * d
        s_ew += e * w
        s_e += e
        s_dd += d * d
        s_dw += d * w
        s_d += d
        s_ww += w * w
        s_w += w
    t_ee = t_ed = t_ew = t_e = t_dd = t_dw = t_d = t_ww = t_w = 0.0
    for j in range(rows):
        e, d, w = y_axis[0, j], y_axis[1, j], y_axis[2, j]
        t_ee += e * e
        t_ed += e * d
        t_ew += e * w
        t_e += e
        t_dd += d * d
        t_dw += d * w
        t_d += d
        t_ww += w * w
        t_w += w
        r_e = r_d = r_w = r_1 = 0.0
        height = amplitude * e
        for i in range(columns):
            residual = samples[j, i] - offset - height * x_axis[0, i]
            cost += residual * residual
            r_e += residual * x_axis[0, i]
            r_d += residual * x_axis[1, i]
            r_w += residual * x_axis[2, i]
            r_1 += residual
        gradient[X] += amplitude * e * r_d
        gradient[Y] += amplitude * d * r_e
        gradient[LN_SX] += amplitude * e * r_w
        gradient[LN_SY] += amplitude * w * r_e
        gradient[AMPLITUDE] += e * r_e
        gradient[OFFSET] += r_1
    a = amplitude
    matrix[X, X] = a * a * s_dd * t_ee
    matrix[Y, X] = a * a * s_ed * t_ed
    matrix[Y, Y] = a * a * s_ee * t_dd
    matrix[LN_SX, X] = a * a * s_dw * t_ee
    matrix[LN_SX, Y] = a * a * s_ew * t_ed
    matrix[LN_SX, LN_SX] = a * a * s_ww * t_ee
    matrix[LN_SY, X] = a * a * s_ed * t_ew
    matrix[LN_SY, Y] = a * a * s_ee * t_dw
    matrix[LN_SY, LN_SX] = a * a * s_ew * t_ew
    matrix[LN_SY, LN_SY] = a * a * s_ee * t_ww
    matrix[AMPLITUDE, X] = a * s_ed * t_ee
    matrix[AMPLITUDE, Y] = a * s_ee * t_ed
    matrix[AMPLITUDE, LN_SX] = a * s_ew * t_ee
    matrix[AMPLITUDE, LN_SY] = a * s_ee * t_ew
    matrix[AMPLITUDE, AMPLITUDE] = s_ee * t_ee
    matrix[OFFSET, X] = a * s_d * t_e
    matrix[OFFSET, Y] = a * s_e * t_d
    matrix[OFFSET, LN_SX] = a * s_w * t_e
    matrix[OFFSET, LN_SY] = a * s_e * t_w
    matrix[OFFSET, AMPLITUDE] = s_e * t_e
    matrix[OFFSET, OFFSET] = float(rows * columns)
    return cost


@njit(cache=True, nogil=True)
def tie_widths(matrix: FloatArray, gradient: FloatArray) -> None:
    """Make ln sx and ln sy one parameter (in the place of ln sx) of a circular Gaussian."""
    for k in range(PARAMETERS):
        for j in range(k):
            matrix[j, k] = matrix[k, j]
    gradient[LN_SX] += gradient[LN_SY]
    gradient[LN_SY] = 0
    for k in range(PARAMETERS):
        matrix[LN_SX, k] += matrix[LN_SY, k]
    for k in range(PARAMETERS):
        matrix[k, LN_SX] += matrix[k, LN_SY]
    matrix[LN_SY, :] = 0
    matrix[:, LN_SY] = 0
    matrix[LN_SY, LN_SY] = 1
