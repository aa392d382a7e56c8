"""Sub-pixel centre, widths and their covariance: an elliptical Gaussian by least squares.

    f(x, y) = b + a exp(-(x - x0)^2 / (2 sx^2) - (y - y0)^2 / (2 sy^2))

with the axes along x and y, a local background b, and Levenberg-Marquardt steps on
(x0, y0, ln sx, ln sy, a, b).
A large image is fitted on blocks of about two thirds of its width along either axis, so that every fit costs
about the same; the variance that a block adds to the width, (n^2 - 1) / 12, is part of the model.
Least squares with the right model has no pixel-locking bias, and at equal noise in all pixels it is the
maximum-likelihood estimate; its standard errors are the Cramer-Rao bound times the root of the reduced
chi-square where that is above one.
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
# Samples per width and window half-size in widths.
SAMPLES_PER_SIGMA = 1.5
WINDOW_SIGMAS = 3.0
SMALLEST_HALF_PX = 3
MIN_SIGMA_PX = 0.45
MAX_SAMPLES = 64
FULL_ITERATIONS = 12
WINDOW_ROUNDS = 3

CONVERGED, TOO_FEW_SAMPLES, NOT_CONVERGED = range(3)


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
def _bin_window(
    image: Float32Array, first_x: int, block_x: int, first_y: int, block_y: int, samples: FloatArray
) -> None:
    scale = 1.0 / (block_x * block_y)
    for j in range(samples.shape[0]):
        for i in range(samples.shape[1]):
            total = np.float32(0)
            for row in range(first_y + j * block_y, first_y + (j + 1) * block_y):
                for column in range(first_x + i * block_x, first_x + (i + 1) * block_x):
                    total += image[row, column]
            samples[j, i] = total * scale


@njit(cache=True, nogil=True)
def _profiles(
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
def _normal_equations(
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
def _tie_widths(matrix: FloatArray, gradient: FloatArray) -> None:
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


@njit(cache=True, nogil=True)
def start_amplitude(samples: FloatArray, x_axis: FloatArray, y_axis: FloatArray) -> tuple[float, float]:
    """Return amplitude and background of the least-squares fit at fixed centre and widths."""
    n = float(samples.size)
    sum_e = sum_ee = sum_r = sum_re = 0.0
    for j in range(samples.shape[0]):
        for i in range(samples.shape[1]):
            e = x_axis[0, i] * y_axis[0, j]
            sum_e += e
            sum_ee += e * e
            sum_r += samples[j, i]
            sum_re += samples[j, i] * e
    determinant = n * sum_ee - sum_e * sum_e
    if determinant <= 0:
        return 0.0, sum_r / n
    amplitude = (n * sum_re - sum_e * sum_r) / determinant
    return amplitude, (sum_r - amplitude * sum_e) / n


@njit(cache=True, nogil=True)
def fit_gaussian(
    image: Float32Array,
    parameters: FloatArray,
    noise: float,
    circular: bool,
    iterations: int,
    covariance: FloatArray,
) -> int:
    """Fit one particle, bright on dark; `parameters` (6,) holds the start and takes the result.

    Order: x, y (px), ln sx, ln sy (px), amplitude, background. `noise` is the standard deviation of a pixel.
    `covariance` (6, 6) is filled where the fit converged; the sum of it is scaled by the reduced chi-square
    where that is above one. Returns CONVERGED, TOO_FEW_SAMPLES (at the image's edge) or NOT_CONVERGED.
    """
    height, width = image.shape
    x_axis = np.empty((3, MAX_SAMPLES))
    y_axis = np.empty((3, MAX_SAMPLES))
    matrix = np.empty((PARAMETERS, PARAMETERS))
    gradient = np.empty(PARAMETERS)
    trial_matrix = np.empty((PARAMETERS, PARAMETERS))
    trial_gradient = np.empty(PARAMETERS)
    trial = np.empty(PARAMETERS)
    buffer = np.empty(MAX_SAMPLES * MAX_SAMPLES)
    grid = (-1, 0, 0, -1, 0, 0)
    samples = buffer[:0].reshape((0, 0))
    cost = 0.0
    settled = False
    for _ in range(WINDOW_ROUNDS):
        fx, bx, nx = sample_grid(parameters[X], math.exp(parameters[LN_SX]), width)
        fy, by, ny = sample_grid(parameters[Y], math.exp(parameters[LN_SY]), height)
        if (fx, bx, nx, fy, by, ny) == grid:
            break
        grid = (fx, bx, nx, fy, by, ny)
        if nx < 4 or ny < 4:
            return TOO_FEW_SAMPLES
        samples = buffer[: nx * ny].reshape((ny, nx))
        _bin_window(image, fx, bx, fy, by, samples)
        _profiles(parameters[X], parameters[LN_SX], fx, bx, nx, x_axis[0], x_axis[1], x_axis[2])
        _profiles(parameters[Y], parameters[LN_SY], fy, by, ny, y_axis[0], y_axis[1], y_axis[2])
        amplitude, offset = start_amplitude(samples, x_axis[:, :nx], y_axis[:, :ny])
        if not amplitude > 0:
            return NOT_CONVERGED
        parameters[AMPLITUDE] = amplitude
        parameters[OFFSET] = offset
        cost = _normal_equations(samples, parameters, x_axis[:, :nx], y_axis[:, :ny], matrix, gradient)
        if circular:
            _tie_widths(matrix, gradient)
        damping = 1e-3
        settled = False
        for _ in range(iterations):
            trial_matrix[:] = matrix
            trial_gradient[:] = gradient
            for k in range(PARAMETERS):
                trial_matrix[k, k] *= 1 + damping
            if not solve_spd(trial_matrix, trial_gradient, PARAMETERS):
                damping *= 10
                continue
            if circular:
                trial_gradient[LN_SY] = trial_gradient[LN_SX]
            limit_x = math.exp(parameters[LN_SX])
            limit_y = math.exp(parameters[LN_SY])
            step = trial_gradient
            trial[X] = parameters[X] + min(limit_x, max(-limit_x, step[X]))
            trial[Y] = parameters[Y] + min(limit_y, max(-limit_y, step[Y]))
            trial[LN_SX] = max(math.log(MIN_SIGMA_PX), parameters[LN_SX] + min(0.4, max(-0.4, step[LN_SX])))
            trial[LN_SY] = max(math.log(MIN_SIGMA_PX), parameters[LN_SY] + min(0.4, max(-0.4, step[LN_SY])))
            trial[AMPLITUDE] = parameters[AMPLITUDE] + step[AMPLITUDE]
            trial[OFFSET] = parameters[OFFSET] + step[OFFSET]
            small = (
                abs(step[X]) < 1e-3 * limit_x
                and abs(step[Y]) < 1e-3 * limit_y
                and abs(step[LN_SX]) < 1e-3
                and abs(step[LN_SY]) < 1e-3
            )
            _profiles(trial[X], trial[LN_SX], fx, bx, nx, x_axis[0], x_axis[1], x_axis[2])
            _profiles(trial[Y], trial[LN_SY], fy, by, ny, y_axis[0], y_axis[1], y_axis[2])
            new_cost = _normal_equations(
                samples, trial, x_axis[:, :nx], y_axis[:, :ny], trial_matrix, trial_gradient
            )
            if new_cost <= cost:
                parameters[:] = trial
                matrix[:] = trial_matrix
                gradient[:] = trial_gradient
                if circular:
                    _tie_widths(matrix, gradient)
                cost = new_cost
                damping = max(1e-7, 0.1 * damping)
            else:
                damping *= 10
            if small:
                settled = True
                break
        if not (
            parameters[AMPLITUDE] > 0
            and parameters[LN_SX] < math.log(width)
            and parameters[LN_SY] < math.log(height)
        ):
            return NOT_CONVERGED
    if not settled:
        return NOT_CONVERGED
    return _fill_covariance(matrix, cost, samples.size, noise, grid[1] * grid[4], circular, covariance)


@njit(cache=True, nogil=True)
def _fill_covariance(
    matrix: FloatArray,
    cost: float,
    samples: int,
    noise: float,
    block_area: int,
    circular: bool,
    covariance: FloatArray,
) -> int:
    variance = noise * noise / block_area
    free = samples - (PARAMETERS - 1 if circular else PARAMETERS)
    if free > 0:
        variance = max(variance, cost / free)
    work = np.empty((PARAMETERS, PARAMETERS))
    for k in range(PARAMETERS):
        work[:] = matrix
        column = np.zeros(PARAMETERS)
        column[k] = variance
        if not solve_spd(work, column, PARAMETERS):
            return NOT_CONVERGED
        covariance[:, k] = column
    if circular:
        covariance[LN_SY, :] = covariance[LN_SX, :]
        covariance[:, LN_SY] = covariance[:, LN_SX]
    return CONVERGED


@njit(cache=True, nogil=True, fastmath=True)
def add_particle(image: Float32Array, parameters: FloatArray, sign: float) -> None:
    """Add `sign` times the Gaussian of `parameters`, without its background, to `image` in place."""
    height, width = image.shape
    sx = math.exp(parameters[LN_SX])
    sy = math.exp(parameters[LN_SY])
    left = max(0, int(parameters[X] - 3.5 * sx))
    right = min(width, int(parameters[X] + 3.5 * sx) + 2)
    top = max(0, int(parameters[Y] - 3.5 * sy))
    bottom = min(height, int(parameters[Y] + 3.5 * sy) + 2)
    if right <= left or bottom <= top:
        return
    profile = np.empty(right - left, np.float32)
    for column in range(left, right):
        profile[column - left] = math.exp(-0.5 * ((column - parameters[X]) / sx) ** 2)
    for row in range(top, bottom):
        weight = np.float32(sign * parameters[AMPLITUDE] * math.exp(-0.5 * ((row - parameters[Y]) / sy) ** 2))
        line = image[row]
        for column in range(left, right):
            line[column] += weight * profile[column - left]
