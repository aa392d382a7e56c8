"""Overlapping particles and their background fitted together: weighted least squares by Levenberg-Marquardt.

With the variance of each pixel from the model itself this is Fisher scoring, so its fixed point is that of
the maximum likelihood of Gaussian noise, and the inverse of its matrix the Cramer-Rao bound.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from engines.refine.normal_equations import (
    GROUND,
    expect,
    fill_residual,
    normal_equations,
    pin,
    solve,
    surprise,
)
from engines.refine.rendering import BOTTOM, LEFT, RIGHT, TOP, Z, add, draw

CONVERGED, SINGULAR, NOT_CONVERGED = range(3)
# A step that lowers, or promises to lower, chi-square by less than this is the last.
SMALL_GAIN = 0.05
LARGEST_STEP_PX = 1.0
LARGEST_STEP_UM = 12.0
FIRST_DAMPING = 1e-3
MOST_DAMPING = 1e4
LEAST_LIGHT = 0.05


@njit(cache=True, nogil=True)
def weigh_block(
    others: Any, theta: Any, boxes: Any, region: Any, coefficients: Any, z: Any, noise: Any, space: Any
) -> tuple[Any, Any]:
    """First row and column of the rectangles `region` (m, 4), and the weights (H', W') of the pixels from there.

    They are 1 / variance, as the particles `theta` (n, 4) in their rectangles `boxes` (n, 4) and the `others`
    (H, W) have it, and 0 outside of all rectangles. `noise` is (read variance, shot variance, sign of the
    contrast in the light).
    """
    corner = np.array([region[:, TOP].min(), region[:, LEFT].min()])
    tall, wide = region[:, BOTTOM].max() - corner[0], region[:, RIGHT].max() - corner[1]
    drawn = others[corner[0] : corner[0] + tall, corner[1] : corner[1] + wide].copy()
    image = np.empty((4, tall, wide), np.float32)
    local = np.empty(4, np.int64)
    for k in range(theta.shape[0]):
        draw(theta[k], boxes[k], coefficients, z, False, space, image)
        _shift(boxes[k], corner, local)
        add(drawn, theta[k], local, image, 1.0)
    weight = np.zeros((tall, wide), np.float32)
    for k in range(region.shape[0]):
        _shift(region[k], corner, local)
        for i in range(local[TOP], local[BOTTOM]):
            for j in range(local[LEFT], local[RIGHT]):
                light = max(LEAST_LIGHT, 1.0 + noise[2] * drawn[i, j])
                weight[i, j] = 1.0 / (noise[0] + noise[1] * light)
    return corner, weight


@njit(cache=True, nogil=True)
def _shift(box: Any, corner: Any, local: Any) -> None:
    local[TOP], local[BOTTOM] = box[TOP] - corner[0], box[BOTTOM] - corner[0]
    local[LEFT], local[RIGHT] = box[LEFT] - corner[1], box[RIGHT] - corner[1]


@njit(cache=True, nogil=True)
def fit_block(
    frame: Any,
    others: Any,
    theta: Any,
    boxes: Any,
    corner: Any,
    weight: Any,
    prior: Any,
    coefficients: Any,
    z: Any,
    space: Any,
    iterations: Any,
    covariance: Any,
    fit: Any,
) -> tuple[int, float]:
    """Fit particles `theta` (n, 4: x px, y px, z um, brightness) in place; returns how it ended, and chi-square.

    `frame` (H, W) is the contrast, `others` (H, W) the image of all particles that are not fitted here; `corner`
    and `weight` are those of `weigh_block`, and hold all of the rectangles `boxes` (n, 4). `prior` is what
    brightness to expect, and 1 / its variance, 0 where nothing is known of it. Fills `covariance` (n, 4, 4) with
    the inverse of the Fisher information's parts, and `fit` (n, 2) with the reduced chi-square of each rectangle
    and its pixels.
    """
    n = theta.shape[0]
    tall, wide = weight.shape
    most_tall = (boxes[:, BOTTOM] - boxes[:, TOP]).max()
    most_wide = (boxes[:, RIGHT] - boxes[:, LEFT]).max()
    images = np.empty((n, 4, most_tall, most_wide), np.float32)
    fresh = np.empty_like(images)
    data = np.empty((tall, wide), np.float32)
    residual, trial_residual = np.empty_like(data), np.empty_like(data)
    for k in range(n):
        draw(theta[k], boxes[k], coefficients, z, True, space, images[k])
    for i in range(tall):
        for j in range(wide):
            data[i, j] = frame[corner[0] + i, corner[1] + j] - others[corner[0] + i, corner[1] + j]
    ground = np.zeros(GROUND)
    fill_residual(images, theta, boxes, data, weight, ground, corner, residual)
    total, count = 0.0, 0
    for i in range(tall):
        for j in range(wide):
            if weight[i, j] > 0.0:
                total += residual[i, j]
                count += 1
    ground[0] = total / max(count, 1)
    chi = fill_residual(images, theta, boxes, data, weight, ground, corner, residual) + surprise(theta, prior)
    size = 4 * n + GROUND
    step, lower = np.empty(size), np.zeros((size, size))
    trial = np.empty_like(theta)
    damping, state = FIRST_DAMPING, NOT_CONVERGED
    matrix, right = normal_equations(images, theta, boxes, weight, residual, corner)
    expect(theta, prior, matrix, right)
    pin(theta, z, matrix, right)
    for _ in range(iterations):
        if not solve(matrix, right, damping, step, lower):
            return SINGULAR, chi
        promised = 0.0
        for i in range(size):
            promised += step[i] * right[i]
        if promised < SMALL_GAIN:
            state = CONVERGED
            break
        scale = 1.0
        for k in range(n):
            scale = max(scale, abs(step[4 * k]) / LARGEST_STEP_PX, abs(step[4 * k + 1]) / LARGEST_STEP_PX)
            scale = max(scale, abs(step[4 * k + Z]) / LARGEST_STEP_UM)
        for k in range(n):
            for i in range(4):
                trial[k, i] = theta[k, i] + step[4 * k + i] / scale
            trial[k, Z] = min(max(trial[k, Z], z[2]), z[3])
            draw(trial[k], boxes[k], coefficients, z, True, space, fresh[k])
        trial_ground = ground + step[4 * n :] / scale
        found = fill_residual(fresh, trial, boxes, data, weight, trial_ground, corner, trial_residual)
        found += surprise(trial, prior)
        change = found - chi
        if change < 0.0:
            chi, ground = found, trial_ground
            theta[:] = trial
            images, fresh = fresh, images
            residual, trial_residual = trial_residual, residual
            damping = max(damping * 0.1, 1e-7)
            matrix, right = normal_equations(images, theta, boxes, weight, residual, corner)
            expect(theta, prior, matrix, right)
            pin(theta, z, matrix, right)
        else:
            damping = max(damping * 10.0, 1e-2)
        if scale == 1.0 and abs(change) < SMALL_GAIN:
            state = CONVERGED
            break
        if change >= 0.0 and damping > MOST_DAMPING:
            break
    unit, column = np.zeros(size), np.empty(size)
    for k in range(n):
        for i in range(4):
            unit[:] = 0.0
            unit[4 * k + i] = 1.0
            if not solve(matrix, unit, 0.0, column, lower):
                return SINGULAR, chi
            covariance[k, i] = column[4 * k : 4 * k + 4]
        misfit, pixels = 0.0, 0
        for i in range(boxes[k, TOP] - corner[0], boxes[k, BOTTOM] - corner[0]):
            for j in range(boxes[k, LEFT] - corner[1], boxes[k, RIGHT] - corner[1]):
                misfit += weight[i, j] * residual[i, j] * residual[i, j]
                pixels += 1
        fit[k, 0], fit[k, 1] = misfit / max(pixels - 4 - GROUND, 1), pixels
    return state, chi
