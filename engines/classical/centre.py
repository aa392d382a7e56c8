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

from engines.classical.gaussian import (
    AMPLITUDE,
    LN_SX,
    LN_SY,
    MAX_SAMPLES,
    OFFSET,
    PARAMETERS,
    X,
    Y,
    bin_window,
    normal_equations,
    profiles,
    sample_grid,
    solve_spd,
    tie_widths,
)

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

MIN_SIGMA_PX = 0.45
"""Lower limit of a width, px; a narrower Gaussian lies between the pixels."""
FULL_ITERATIONS = 12
"""Most Levenberg-Marquardt steps in a window; a fit that has not converged by then usually has no minimum."""
WINDOW_ROUNDS = 3
"""Most times that the window follows the fit, since its size depends on the fitted widths."""
STEP_TOLERANCE = 3e-3
"""Part of a width: a fit has converged when a step is smaller, and this last step has been made. The remaining
error is then far below the noise."""

CONVERGED, TOO_FEW_SAMPLES, NOT_CONVERGED = range(3)


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
def amplitude_at(image: Float32Array, parameters: FloatArray) -> tuple[float, float]:
    """Return amplitude and background of the Gaussian with the centre and widths of `parameters` that fits best."""
    fx, bx, nx = sample_grid(parameters[X], math.exp(parameters[LN_SX]), image.shape[1])
    fy, by, ny = sample_grid(parameters[Y], math.exp(parameters[LN_SY]), image.shape[0])
    if nx < 2 or ny < 2:
        return 0.0, 0.0
    samples = np.empty((ny, nx))
    x_axis = np.empty((3, nx))
    y_axis = np.empty((3, ny))
    bin_window(image, fx, bx, fy, by, samples)
    profiles(parameters[X], parameters[LN_SX], fx, bx, nx, x_axis[0], x_axis[1], x_axis[2])
    profiles(parameters[Y], parameters[LN_SY], fy, by, ny, y_axis[0], y_axis[1], y_axis[2])
    return start_amplitude(samples, x_axis, y_axis)


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
        bin_window(image, fx, bx, fy, by, samples)
        profiles(parameters[X], parameters[LN_SX], fx, bx, nx, x_axis[0], x_axis[1], x_axis[2])
        profiles(parameters[Y], parameters[LN_SY], fy, by, ny, y_axis[0], y_axis[1], y_axis[2])
        amplitude, offset = start_amplitude(samples, x_axis[:, :nx], y_axis[:, :ny])
        if not amplitude > 0:
            return NOT_CONVERGED
        parameters[AMPLITUDE] = amplitude
        parameters[OFFSET] = offset
        cost = normal_equations(samples, parameters, x_axis[:, :nx], y_axis[:, :ny], matrix, gradient)
        if circular:
            tie_widths(matrix, gradient)
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
                abs(step[X]) < STEP_TOLERANCE * limit_x
                and abs(step[Y]) < STEP_TOLERANCE * limit_y
                and abs(step[LN_SX]) < STEP_TOLERANCE
                and abs(step[LN_SY]) < STEP_TOLERANCE
            )
            profiles(trial[X], trial[LN_SX], fx, bx, nx, x_axis[0], x_axis[1], x_axis[2])
            profiles(trial[Y], trial[LN_SY], fy, by, ny, y_axis[0], y_axis[1], y_axis[2])
            new_cost = normal_equations(
                samples, trial, x_axis[:, :nx], y_axis[:, :ny], trial_matrix, trial_gradient
            )
            if new_cost <= cost:
                parameters[:] = trial
                matrix[:] = trial_matrix
                gradient[:] = trial_gradient
                if circular:
                    tie_widths(matrix, gradient)
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
