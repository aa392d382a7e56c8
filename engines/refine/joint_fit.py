"""Overlapping particles and their background fitted together: weighted least squares by Levenberg-Marquardt.

For the n particles theta_k = (x, y, z, A)_k of a block, on a plane g of background, pixel i of the model is

    mu_i = others_i + sum_k A_k f(x_i - x_k, y_i - y_k; z_k) + g_0 + g_1 u_i + g_2 v_i    (1)

with f of `spline` and u, v the columns and rows from the middle of the block. The weights are

    w_i = 1 / (read + shot max(LEAST_LIGHT, 1 + sign mu_i))    (2)

with mu_i without the plane. Where a camera has an offset, `read` may be less than 0, as that part of the background
has no noise; the variance then is LEAST_LIGHT of the background's at least. Where brightnesses A are expected
around A_0 with a precision p,

    chi2 = sum_i w_i (d_i - mu_i)^2 + p sum_k (A_k - A_0)^2    (3)

is minimised. With J_ia = d mu_i / d theta_a, W = diag(w) and r = d - mu the step delta solves (Marquardt 1963,
J. SIAM 11, 431)

    (F + lambda diag F) delta = J^T W r + p (A_0 - A),  F = J^T W J + p on the brightnesses    (4)

As the weights come from the model itself and not from the data, F is the Fisher information of independent Gaussian
noise (but for the change of the noise with theta), (4) is Fisher scoring, and the covariance

    cov = F^-1    (5)

is the Cramer-Rao bound (for single molecules: Smith et al. 2010, Nature Methods 7, 373).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.arguments import Float32Array, FloatArray, IntArray, Noise, Pixels, Prior, Psf
from engines.refine.normal_equations import (
    GROUND,
    add_prior,
    block_of,
    chi_square_of,
    fill_matrix,
    fill_residual,
    fill_right,
    hold_at_ends,
    prior_chi_square,
    solve,
    substitute,
)
from engines.refine.rendering import BOTTOM, BOX, LEFT, RIGHT, TOP, Z, add, render

CONVERGED, SINGULAR, NOT_CONVERGED = range(3)
"""How a fit ended."""

# Constants of (4); chi-square is in units of the noise, so a gain of 1 is one standard deviation of one parameter.
SMALL_GAIN = 0.05
"""Chi-square. A step that lowers it by less, or promises to, is the last: such a step moves no parameter by more
than sqrt(0.05) = 0.22 standard errors. Smaller takes more steps for a difference that is lost in the noise."""
CHANCE = 3.0
"""Standard deviations of a reduced chi-square, sqrt(2 / pixels), above 1 from which a block's images are unlike the
model. As `fitting.CHANCE_SIGMAS`."""
ITERATIONS = 48
"""Most steps of a fit; 3 to 6 are typical, so this only ends fits that go back and forth. With 16, one in thirty of
a real scan's, where bright particles overlap, ended at the right place but not at rest."""
LARGEST_STEP_PX = 1.0
"""px; beyond about half the width of the narrowest image (1) is not linear any more. Only slows down bad starts."""
LARGEST_STEP_UM = 12.0
"""um of depth, for the same reason: longer steps may end in the image at the other focal line."""
FIRST_DAMPING = 1e-3
"""lambda of the first step, Marquardt's (1963) choice, near the Gauss-Newton step as starts are good."""
LESS_DAMPING, MORE_DAMPING = 0.1, 10.0
"""Factors of lambda after a step that lowered chi-square and after one that did not: Marquardt's (1963) v = 10."""
LEAST_DAMPING, LEAST_RAISED_DAMPING, MOST_DAMPING = 1e-7, 1e-2, 1e4
"""Bounds of lambda: below the first a step is a Gauss-Newton step, and a step that failed is not tried again nearly
unchanged; at the last, steps are 1e-4 of a gradient step and the fit gives up."""
LEAST_LIGHT = 0.05
"""Light of a pixel, relative to the background's, below which the shot noise does not fall any more: keeps the
weight of black pixels finite. It matters to particles that take away 95 % of the light, and to no others."""


@njit(cache=True, nogil=True)
def weigh_block(
    others: Float32Array, theta: FloatArray, boxes: IntArray, region: IntArray, psf: Psf, noise: Noise
) -> tuple[IntArray, Float32Array]:
    """First row and column of the rectangles `region` (m, 4), and the weights (2), (H', W'), from there on.

    The light of a pixel is that of the particles `theta` (n, 4) in their rectangles `boxes` (n, 4) and of the
    `others` (H, W). The weight is 0 outside of all rectangles.
    """
    corner = np.empty(2, np.int64)
    corner[0], corner[1] = region[0, TOP], region[0, LEFT]
    bottom, right = region[0, BOTTOM], region[0, RIGHT]
    for k in range(1, region.shape[0]):
        corner[0], corner[1] = min(corner[0], region[k, TOP]), min(corner[1], region[k, LEFT])
        bottom, right = max(bottom, region[k, BOTTOM]), max(right, region[k, RIGHT])
    tall, wide = bottom - corner[0], right - corner[1]
    drawn = np.empty((tall, wide), np.float32)
    for i in range(tall):
        drawn[i] = others[corner[0] + i, corner[1] : right]
    local = np.empty(BOX, np.int64)
    for k in range(theta.shape[0]):
        render(theta[k], boxes[k], psf, False, psf.drawn)
        _shift(boxes[k], corner, local)
        add(drawn, theta[k], local, psf.drawn, 1.0)
    weight = np.zeros((tall, wide), np.float32)
    one, sign, least = np.float32(1.0), np.float32(noise.sign), np.float32(LEAST_LIGHT)
    read, shot = np.float32(noise.read), np.float32(noise.shot)
    if read < np.float32(0.0):
        least += (least - one) * read / shot
    for k in range(region.shape[0]):
        _shift(region[k], corner, local)
        for i in range(local[TOP], local[BOTTOM]):
            line, image = weight[i, local[LEFT] : local[RIGHT]], drawn[i, local[LEFT] : local[RIGHT]]
            for j in range(local[RIGHT] - local[LEFT]):
                light = one + sign * image[j]
                light = least if light < least else light
                line[j] = one / (read + shot * light)
    return corner, weight


@njit(cache=True, nogil=True)
def _shift(box: IntArray, corner: IntArray, local: IntArray) -> None:
    local[TOP], local[BOTTOM] = box[TOP] - corner[0], box[BOTTOM] - corner[0]
    local[LEFT], local[RIGHT] = box[LEFT] - corner[1], box[RIGHT] - corner[1]


@njit(cache=True, nogil=True)
def _unlike(chi: float, count: int, size: int) -> float:
    """The reduced chi-square of a block of `count` pixels where it is beyond what noise gives, else 1.

    Standard errors are larger by its root where images are unlike the model, and so is what counts as a small step.
    """
    free = max(count - size, 1)
    reduced = chi / free
    return reduced if reduced > 1.0 + CHANCE * np.sqrt(2.0 / free) else 1.0


@njit(cache=True, nogil=True)
def fit_block(
    pixels: Pixels,
    theta: FloatArray,
    boxes: IntArray,
    prior: Prior,
    psf: Psf,
    iterations: int,
    covariance: FloatArray,
    fit: FloatArray,
) -> tuple[int, float]:
    """Fit particles `theta` (n, 4: x px, y px, z um, brightness) in place; returns how it ended, and (3).

    The weights of `pixels` are those of `weigh_block`, and hold all of the rectangles `boxes` (n, 4). Fills
    `covariance` (n, 4, 4) with each particle's part of (5), and `fit` (n, 2) with the reduced chi-square of each
    rectangle and its pixels.
    """
    n = theta.shape[0]
    block = block_of(pixels, boxes)
    weight, corner = pixels.weight, pixels.corner
    tall, wide = weight.shape
    images = np.empty((n, 4, block.space.size), np.float32)
    fresh = np.empty_like(images)
    residual, trial_residual = np.empty((tall, wide), np.float32), np.empty((tall, wide), np.float32)
    for k in range(n):
        render(theta[k], boxes[k], psf, True, images[k])
    ground = np.zeros(GROUND)
    fill_residual(images, theta, boxes, block, ground, residual)
    total, count = 0.0, 0
    for i in range(tall):
        for j in range(wide):
            if weight[i, j] > 0.0:
                total += residual[i, j]
                count += 1
    ground[0] = total / max(count, 1)
    chi = fill_residual(images, theta, boxes, block, ground, residual) + prior_chi_square(theta, prior)
    size = 4 * n + GROUND
    step, lower = np.empty(size), np.zeros((size, size))
    matrix, right = np.empty((size, size)), np.empty(size)
    trial, trial_ground = np.empty_like(theta), np.empty(GROUND)
    damping, state = FIRST_DAMPING, NOT_CONVERGED
    fill_matrix(images, theta, boxes, block, matrix)
    fill_right(images, theta, boxes, block, residual, right)
    add_prior(theta, prior, matrix, right)
    hold_at_ends(theta, psf, matrix, right)
    for _ in range(iterations):
        if not solve(matrix, right, damping, step, lower):
            return SINGULAR, chi
        promised = 0.0
        for i in range(size):
            promised += step[i] * right[i]
        small = SMALL_GAIN * _unlike(chi, count, size)
        if promised < small:
            state = CONVERGED
            break
        scale = 1.0
        for k in range(n):
            scale = max(scale, abs(step[4 * k]) / LARGEST_STEP_PX, abs(step[4 * k + 1]) / LARGEST_STEP_PX)
            scale = max(scale, abs(step[4 * k + Z]) / LARGEST_STEP_UM)
        for k in range(n):
            for i in range(4):
                trial[k, i] = theta[k, i] + step[4 * k + i] / scale
            trial[k, Z] = min(max(trial[k, Z], psf.z_min_um), psf.z_max_um)
            render(trial[k], boxes[k], psf, True, fresh[k])
        for i in range(GROUND):
            trial_ground[i] = ground[i] + step[4 * n + i] / scale
        found = fill_residual(fresh, trial, boxes, block, trial_ground, trial_residual)
        found += prior_chi_square(trial, prior)
        change = found - chi
        if change < 0.0:
            chi = found
            ground[:] = trial_ground
            theta[:] = trial
            images, fresh = fresh, images
            residual, trial_residual = trial_residual, residual
            damping = max(damping * LESS_DAMPING, LEAST_DAMPING)
            fill_matrix(images, theta, boxes, block, matrix)
            fill_right(images, theta, boxes, block, residual, right)
            add_prior(theta, prior, matrix, right)
            hold_at_ends(theta, psf, matrix, right)
        else:
            damping = max(damping * MORE_DAMPING, LEAST_RAISED_DAMPING)
        if scale == 1.0 and abs(change) < small:
            state = CONVERGED
            break
        if change >= 0.0 and damping > MOST_DAMPING:
            break
    if not solve(matrix, right, 0.0, step, lower):
        return SINGULAR, chi
    unit, column = np.zeros(size), np.empty(size)
    for k in range(n):
        for i in range(4):
            unit[:] = 0.0
            unit[4 * k + i] = 1.0
            substitute(lower, unit, column)
            for j in range(4):
                covariance[k, i, j] = column[4 * k + j]
        top, bottom = boxes[k, TOP] - corner[0], boxes[k, BOTTOM] - corner[0]
        first, last = boxes[k, LEFT] - corner[1], boxes[k, RIGHT] - corner[1]
        count = (bottom - top) * (last - first)
        squares = chi_square_of(residual, weight, top, bottom, first, last)
        fit[k, 0], fit[k, 1] = squares / max(count - 4 - GROUND, 1), count
    return state, chi
