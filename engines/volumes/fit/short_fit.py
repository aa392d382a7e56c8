"""The fit of particles for which there is no time: two steps of Fisher scoring for each group, and no trials.

A filter's place is off by less than the width of a particle's image, where the equations of `joint_fit` are nearly
linear: their first step removes most of what is left, their second most of the rest. Not done are the search for
particles that were missed, the trials of fewer ones, and steps until nothing changes.
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
)
from engines.volumes.fit.grouping import LARGEST_GROUP
from engines.volumes.fit.joint_fit import FIRST_DAMPING, LARGEST_STEP, hold, keep_within, open_window
from engines.volumes.fit.judgement import CHI_SQUARE, RATIO, chi_square_of
from engines.volumes.fit.normal_equations import (
    BRIGHT_ELECTRONS,
    MUCH_READ,
    deviance,
    fill_equations,
    fill_light,
    fill_weights,
)
from engines.volumes.fit.particle_count import PLACE, misfit_of
from engines.volumes.fit.rendering import VALUE, render, volume_of
from engines.volumes.fit.residual_search import elongation
from engines.volumes.fit.volume import FIRST_VOXELS, in_groups, put_all
from engines.volumes.fit.windows import boxes_of, make_room, room_for

STEPS = 2
"""With two, lone particles are as far off as after the whole fit, to 3 % (SNR 1 to 7, 2,700 particles). A third
would take half as long again."""


@njit(cache=True, nogil=True)
def _covariances(
    matrix: FloatArray, lower: FloatArray, work: FloatArray, covariance: FloatArray, fit: FloatArray
) -> None:
    """Fill `covariance` (n, 4, 4) from the decomposed F, and `fit[:, RATIO]` with 1 / (F_aa C_aa) of amplitudes.

    That is the part of what is known of an amplitude that is left where all else is fitted, its own place excluded.
    """
    total = matrix.shape[0]
    unit, one, small = np.zeros(total), work, np.empty_like(matrix)
    other = np.zeros_like(matrix)
    for k in range(covariance.shape[0]):
        for i in range(PARTICLE):
            unit[:] = 0.0
            unit[PARTICLE * k + i] = 1.0
            substitute(lower, unit, one)
            for j in range(PARTICLE):
                covariance[k, i, j] = one[PARTICLE * k + j]
        small[:] = matrix
        for p in range(PARTICLE * k, PARTICLE * k + A):
            small[p, :] = 0.0
            small[:, p] = 0.0
            small[p, p] = 1.0
        a = PARTICLE * k + A
        unit[:] = 0.0
        unit[a] = 1.0
        fit[k, RATIO] = 1.0 / (matrix[a, a] * one[a]) if solve(small, unit, 0.0, one, other) else 0.0


@njit(cache=True, nogil=True)
def _ratios(
    theta: FloatArray, boxes: IntArray, window: IntArray, stack: Stack, room: Room, fit: FloatArray
) -> None:
    """Multiply `fit[:, RATIO]` with 2 ln of the likelihoods with and without each particle."""
    size = volume_of(window)
    tall, wide = window[3] - window[2], window[5] - window[4]
    bright = stack.read > MUCH_READ * stack.gain**2
    for k in range(theta.shape[0]):
        bright = bright or theta[k, A] > BRIGHT_ELECTRONS * stack.gain
    now = deviance(stack, size, bright, room)
    for k in range(theta.shape[0]):
        for sign in (-1.0, 1.0):
            b, at, factor = boxes[k], 0, np.float32(sign * theta[k, A])
            width = b[5] - b[4]
            for i in range(b[0] - window[0], b[1] - window[0]):
                for j in range(b[2] - window[2], b[3] - window[2]):
                    start = (i * tall + j) * wide + b[4] - window[4]
                    row, image = room.light[start : start + width], room.images[k, VALUE, at : at + width]
                    for t in range(width):
                        row[t] += factor * image[t]
                    at += width
            if sign < 0.0:
                ratio = max(deviance(stack, size, bright, room) - now, 0.0)
                fit[k, RATIO] *= ratio if theta[k, A] > 0.0 else -ratio


@njit(cache=True, nogil=True)
def _fit_group(
    theta: FloatArray,
    ground: FloatArray,
    others: Float32Array,
    stack: Stack,
    psf: KernelPsf,
    room: Room,
    covariance: FloatArray,
    fit: FloatArray,
    longer: FloatArray,
) -> Room:
    n = theta.shape[0]
    total = PARTICLE * n + 1
    boxes = boxes_of(theta, stack, psf)
    room = room_for(boxes, stack, psf, room)
    window = np.empty(BOX, np.int64)
    open_window(stack, others, boxes, window, room)
    size = volume_of(window)
    step, lower, held = np.empty(total), np.zeros((total, total)), np.zeros(total, np.bool_)
    even = -2.0 * np.log(stack.density * PLACE * psf.sigma[0] * psf.sigma[1] * psf.sigma[2])
    matrix, right, half = np.empty((total, total)), np.empty(total), np.empty(3)
    for turn in range(STEPS):
        for k in range(n):
            render(theta[k], boxes[k], stack.heights, psf, True, room, room.images[k])
        fill_light(room.images, theta, ground[0], boxes, window, room)
        fill_weights(stack, size, room)
        fill_equations(room.images, theta, ground[0], boxes, window, stack, room, matrix, right)
        hold(held, stack.flat, matrix, right)
        if turn == STEPS - 1:
            if not solve(matrix, right, 0.0, step, lower):
                covariance[:n] = np.nan
                return room
            misfit = misfit_of(size, total, room)
            for k in range(n):
                fit[k, CHI_SQUARE] = chi_square_of(boxes[k], window, room)
            _covariances(matrix, lower, np.empty(total), covariance[:n], fit)
            _ratios(theta, boxes, window, stack, room, fit)
            for k in range(n):
                fit[k, RATIO] /= misfit
                for i in range(PARTICLE):
                    for j in range(PARTICLE):
                        covariance[k, i, j] *= misfit
                longer[k] = elongation(theta[k], boxes[k], window, stack, psf, room, half)
                if longer[k] ** 2 > even:
                    for axis in range(3):
                        covariance[k, axis, axis] += half[axis] ** 2
        if not solve(matrix, right, FIRST_DAMPING, step, lower):
            covariance[:n] = np.nan
            return room
        scale = 1.0
        for k in range(n):
            for axis in range(3):
                scale = max(scale, abs(step[PARTICLE * k + axis]) / (LARGEST_STEP * psf.sigma[axis]))
        for k in range(n):
            for i in range(PARTICLE):
                theta[k, i] += step[PARTICLE * k + i] / scale
            keep_within(theta[k], stack, psf)
        ground[0] += step[total - 1] / scale
    return room


@njit(cache=True, nogil=True)
def fit_short(
    stack: Stack,
    psf: KernelPsf,
    theta: FloatArray,
    usable: BoolArray,
    group: IntArray,
    others: Float32Array,
    ground: FloatArray,
    covariance: FloatArray,
    fit: FloatArray,
) -> FloatArray:
    """Fit the `usable` (N,) particles `theta` (N, 4) in place, each `group` (N,) together.

    Fills `ground`, `covariance` and `fit` as `fit_volume` does. `others` (D, H, W) has the light of all particles
    of the volume; it is kept up to date. Returns the strength of `elongation` (N,) of each: how surely it is two.
    Where that is sure, both may be as far from the place as they are drawn apart, which is added to the covariance.
    """
    room = make_room(psf, stack, FIRST_VOXELS)
    longer, long = np.zeros(theta.shape[0]), np.zeros(LARGEST_GROUP)
    members, begin = in_groups(group, usable)
    now, one = np.empty((LARGEST_GROUP, PARTICLE)), np.zeros(1)
    spread, numbers = np.empty((LARGEST_GROUP, PARTICLE, PARTICLE)), np.empty((LARGEST_GROUP, fit.shape[1]))
    for g in range(begin.size - 1):
        n = begin[g + 1] - begin[g]
        if n == 0:
            continue
        one[0] = 0.0
        for k in range(n):
            now[k] = theta[members[begin[g] + k]]
        put_all(others, now, n, -1.0, stack, psf, room)
        room = _fit_group(now[:n], one, others, stack, psf, room, spread, numbers, long)
        put_all(others, now, n, 1.0, stack, psf, room)
        for k in range(n):
            row = members[begin[g] + k]
            theta[row] = now[k]
            ground[row] = one[0]
            covariance[row] = spread[k]
            fit[row] = numbers[k]
            longer[row] = long[k]
    return longer
