"""Overlapping particles of a volume and their background fitted together: maximum likelihood by Fisher scoring.

For the n particles theta_k = (z, y, x, A)_k of a group, on what is known of the rest of the volume (background and
the other particles) and an even ground c, voxel i of the model is

    mu_i = base_i + c + sum_k A_k f(s_i - r_k)                                            (1)

in grey values less the offset, with f of `psf`. Its variance is

    V_i = gain mu_i + read                                                                (2)

The photoelectrons d / gain of shot noise are Poisson-distributed; with read noise, d / gain + read / gain^2 has the
mean and the variance of a Poisson distribution of mean V / gain^2 (Huang et al. 2013, Nature Methods 10, 653), so

    -2 ln L = 2 / gain^2 sum_i V_i - (gain d_i + read) ln V_i                             (3)

exact without read noise, and the Gaussian likelihood where read noise dominates. To it is added the prior of the
ground, c^2 times its precision. With J_ia = d mu_i / d theta_a the step delta of Fisher scoring, damped as by
Marquardt (1963, J. SIAM 11, 431), solves

    (F + lambda diag F) delta = sum_i J_i (d_i - mu_i) / V_i,  F = sum_i J_i J_i^T / V_i  (4)

F^-1 is the Cramer-Rao bound (but for the change of the variance with theta, of order gain^2 / V).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.normal_equations import solve, substitute
from engines.volumes.fit.arguments import (
    BOX,
    PARTICLE,
    A,
    BoolArray,
    Float32Array,
    FloatArray,
    IntArray,
    KernelPsf,
    Room,
    Stack,
    X,
    Y,
    Z,
)
from engines.volumes.fit.normal_equations import (
    BRIGHT_ELECTRONS,
    MUCH_READ,
    deviance,
    fill_equations,
    fill_light,
    fill_weights,
    take_reference,
)
from engines.volumes.fit.rendering import render, volume_of

# Constants of (4); -2 ln L is in units of the noise, so a gain of 1 is one standard deviation of one parameter.
SMALL_GAIN = 0.01
"""-2 ln L. A step that lowers it by less, or promises to, is the last: it moves no parameter by more than 0.1
standard errors, and adds 0.5 % to the scatter."""
ITERATIONS = 40
"""Most steps of a fit; 3 to 6 are typical, so this only ends fits that go back and forth."""
LARGEST_STEP = 0.7
"""Standard deviations of the PSF along each axis; beyond about the PSF's width (1) is not linear any more."""
FIRST_DAMPING = 1e-3
"""lambda of the first step, Marquardt's choice, near the Gauss-Newton step as starts are good."""
LESS_DAMPING, MORE_DAMPING = 0.1, 10.0
"""Factors of lambda after a step that helped and after one that did not: Marquardt's v = 10."""
LEAST_DAMPING, LEAST_RAISED_DAMPING, MOST_DAMPING = 1e-7, 1e-2, 1e4
"""Bounds of lambda: below the first a step is a Gauss-Newton step, and a step that failed is not tried again nearly
unchanged; at the last, steps are 1e-4 of a gradient step and the fit gives up."""
BEYOND_SIGMAS = 1.0
"""Standard deviations of the PSF by which a particle may lie outside the first or last slice: farther out its
amplitude is more than 1.6 times what is seen of it, and only the shape of the tail tells its place."""


@njit(cache=True, nogil=True)
def set_window(boxes: IntArray, window: IntArray) -> None:
    """Fill `window` (6,) with the smallest box that holds all `boxes` (n, 6)."""
    for p in range(BOX):
        window[p] = boxes[0, p]
    for k in range(1, boxes.shape[0]):
        for axis in range(3):
            window[2 * axis] = min(window[2 * axis], boxes[k, 2 * axis])
            window[2 * axis + 1] = max(window[2 * axis + 1], boxes[k, 2 * axis + 1])


@njit(cache=True, nogil=True)
def _fill_base(stack: Stack, others: Float32Array, window: IntArray, room: Room) -> None:
    """Fill `room.data` with the image and `room.base` with the `others` (D, H, W) and the background."""
    high, long = stack.grid.shape[1], stack.grid.shape[2]
    at, width = 0, window[5] - window[4]
    for k in range(window[0], window[1]):
        for j in range(window[2], window[3]):
            v = min(max((j + 0.5) / stack.cell - 0.5, 0.0), high - 1.0)
            j0 = int(v)
            j1, v = min(j0 + 1, high - 1), v - j0
            for i in range(width):
                u = min(max((window[4] + i + 0.5) / stack.cell - 0.5, 0.0), long - 1.0)
                i0 = int(u)
                i1, u = min(i0 + 1, long - 1), u - i0
                upper = (1.0 - u) * stack.grid[k, j0, i0] + u * stack.grid[k, j0, i1]
                lower = (1.0 - u) * stack.grid[k, j1, i0] + u * stack.grid[k, j1, i1]
                room.base[at + i] = others[k, j, window[4] + i] + np.float32((1.0 - v) * upper + v * lower)
                room.data[at + i] = stack.image[k, j, window[4] + i]
            at += width


@njit(cache=True, nogil=True)
def _fill_inside(stack: Stack, boxes: IntArray, window: IntArray, room: Room) -> int:
    """Fill `room.inside` with 1 in all boxes where slices have an image, else 0; returns how many voxels count."""
    size = volume_of(window)
    room.inside[:size] = 0.0
    tall, wide = window[3] - window[2], window[5] - window[4]
    for m in range(boxes.shape[0]):
        b = boxes[m]
        for k in range(b[0], b[1]):
            if not stack.seen[k]:
                continue
            for j in range(b[2], b[3]):
                start = ((k - window[0]) * tall + j - window[2]) * wide - window[4]
                room.inside[start + b[4] : start + b[5]] = 1.0
    count = 0
    for t in range(size):
        count += room.inside[t] > 0.0
    return count


@njit(cache=True, nogil=True)
def open_window(stack: Stack, others: Float32Array, boxes: IntArray, window: IntArray, room: Room) -> int:
    """Make the window of `boxes` (n, 6) ready for `fit_window`; returns how many of its voxels count."""
    set_window(boxes, window)
    _fill_base(stack, others, window, room)
    take_reference(volume_of(window), room)
    return _fill_inside(stack, boxes, window, room)


@njit(cache=True, nogil=True)
def keep_within(theta: FloatArray, stack: Stack, psf: KernelPsf) -> None:
    """Hold a particle (4,) in the volume: half a voxel outside the first and last rows and columns, and
    `BEYOND_SIGMAS` outside the first and last slices."""
    shape = stack.image.shape
    beyond = max(BEYOND_SIGMAS * psf.sigma[Z], 0.5)
    theta[Z] = min(max(theta[Z], stack.heights[0] - beyond), stack.heights[shape[0] - 1] + beyond)
    theta[Y] = min(max(theta[Y], -0.5), shape[1] - 0.5)
    theta[X] = min(max(theta[X], -0.5), shape[2] - 0.5)


@njit(cache=True, nogil=True)
def hold(held: BoolArray, flat: bool, matrix: FloatArray, right: FloatArray) -> None:
    """Take parameters that are `held` out of the equations, and z where the volume is `flat`."""
    for p in range(held.size):
        if held[p] or (flat and p % PARTICLE == Z and p < held.size - 1):
            matrix[p, :] = 0.0
            matrix[:, p] = 0.0
            matrix[p, p] = 1.0
            right[p] = 0.0


@njit(cache=True, nogil=True)
def fit_window(
    theta: FloatArray,
    ground: FloatArray,
    held: BoolArray,
    boxes: IntArray,
    window: IntArray,
    stack: Stack,
    psf: KernelPsf,
    room: Room,
    covariance: FloatArray,
) -> tuple[float, float]:
    """Fit the particles `theta` (n, 4) and the `ground` (1,) in place; return (3) with the prior, and ln det F.

    (3) is less that of the window without the particles; ln det F is -inf where F is singular. The window is that
    of `open_window`. Parameters that are `held` (4n + 1,) stay. `covariance` (4n + 1, 4n + 1) is filled with F^-1;
    with NaN where F is singular.
    """
    n, size = theta.shape[0], volume_of(window)
    total = PARTICLE * n + 1
    step, lower, unit = np.empty(total), np.zeros((total, total)), np.zeros(total)
    matrix, right = np.empty((total, total)), np.empty(total)
    trial, trial_ground = np.empty_like(theta), 0.0
    images, fresh = room.images, room.fresh
    for k in range(n):
        render(theta[k], boxes[k], stack.heights, psf, True, room, images[k])
    fill_light(images, theta, ground[0], boxes, window, room)
    bright = stack.read > MUCH_READ * stack.gain**2
    for k in range(n):
        bright = bright or theta[k, A] > BRIGHT_ELECTRONS * stack.gain
    now = deviance(stack, size, bright, room) + stack.stiffness * ground[0] ** 2
    fill_weights(stack, size, room)
    fill_equations(images, theta, ground[0], boxes, window, stack, room, matrix, right)
    hold(held, stack.flat, matrix, right)
    damping = FIRST_DAMPING
    for _ in range(ITERATIONS):
        if not solve(matrix, right, damping, step, lower):
            damping = max(damping * MORE_DAMPING, LEAST_RAISED_DAMPING)
            if damping > MOST_DAMPING:
                break
            continue
        promised = 0.0
        for i in range(total):
            promised += step[i] * right[i]
        if promised < SMALL_GAIN:
            break
        scale = 1.0
        for k in range(n):
            for axis in range(3):
                scale = max(scale, abs(step[PARTICLE * k + axis]) / (LARGEST_STEP * psf.sigma[axis]))
        for k in range(n):
            for i in range(PARTICLE):
                trial[k, i] = theta[k, i] + step[PARTICLE * k + i] / scale
            keep_within(trial[k], stack, psf)
            render(trial[k], boxes[k], stack.heights, psf, True, room, fresh[k])
        trial_ground = ground[0] + step[total - 1] / scale
        fill_light(fresh, trial, trial_ground, boxes, window, room)
        found = deviance(stack, size, bright, room) + stack.stiffness * trial_ground**2
        change = found - now
        if change < 0.0:
            now = found
            ground[0] = trial_ground
            theta[:] = trial
            images, fresh = fresh, images
            damping = max(damping * LESS_DAMPING, LEAST_DAMPING)
            fill_weights(stack, size, room)
            fill_equations(images, theta, ground[0], boxes, window, stack, room, matrix, right)
            hold(held, stack.flat, matrix, right)
        else:
            damping = max(damping * MORE_DAMPING, LEAST_RAISED_DAMPING)
        if (scale == 1.0 and abs(change) < SMALL_GAIN) or (change >= 0.0 and damping > MOST_DAMPING):
            break
    if not solve(matrix, right, 0.0, step, lower):
        covariance[:] = np.nan
        return now, -np.inf
    log_det = 0.0
    for i in range(total):
        log_det += 2.0 * np.log(lower[i, i])
        unit[:] = 0.0
        unit[i] = 1.0
        substitute(lower, unit, step)
        for j in range(total):
            covariance[i, j] = step[j]
    return now, log_det
