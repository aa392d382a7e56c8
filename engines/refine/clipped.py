"""Particles whose images are partly unlike the model, fitted again without the pixels that are.

Where a camera or an image is clipped at its darkest or brightest, or dirt lies in a part of an image, the rest of
it still says where the particle is. Pixels that lie together and are off by more than noise are left out, and the
particle is fitted again (a skipped estimate; Huber & Ronchetti 2009, Robust Statistics, ch. 1).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.arguments import (
    BoolArray,
    Float32Array,
    FloatArray,
    IntArray,
    Noise,
    Particles,
    Pixels,
    Prior,
    Psf,
)
from engines.refine.depth_search import LARGEST_MOVE_PX
from engines.refine.joint_fit import CONVERGED, ITERATIONS, fit_block, weigh_block
from engines.refine.normal_equations import solve
from engines.refine.rendering import BOX, LEFT, SPARE_UM, TOP, A, X, Y, put, render, set_box
from engines.refine.spline import pitch_of

ROUNDS = 4
"""How often pixels are chosen anew, with the particle where the last fit has it."""
OFF_SIGMAS = 3.5
"""Standard errors of the mean of 3 x 3 pixels from which their middle is left out: 0.05 % of the pixels of an image
that is like the model."""
CORE = 0.5
"""Part of the peak beyond which a pixel is in the core: the flank outside says where the particle is, how large and
how bright it is."""
LEAST_STRENGTH = 5.0
"""Brightness over its standard error that the pixels kept have to give: of a particle of which less is seen, the
first fit says as much."""


@njit(cache=True, nogil=True)
def refit_clipped(
    frame: Float32Array, total: Float32Array, particles: Particles, which: BoolArray, psf: Psf, noise: Noise
) -> None:
    """Fit `which` (N,) of the `particles` again, each by itself, in place; `total` (H, W) stays the image of all.

    Two starts are tried: the first fit, and one to the flank of the image alone, as what is clipped is its core.
    What explains the pixels that it keeps best stays, the first fit included.
    """
    theta, covariance, fit = particles.theta, particles.covariance, particles.fit
    boxes = np.empty((1, BOX), np.int64)
    errors, good = np.empty((1, 4, 4)), np.empty((1, 2))
    for i in np.flatnonzero(which):
        put(total, theta[i], -1.0, psf)
        start = theta[i].copy()
        set_box(start, frame.shape, psf, SPARE_UM, boxes[0])
        best = fit[i, 0]
        for flank_first in (False, True):
            one = start.reshape(1, 4).copy()
            strength, ended = np.inf, CONVERGED
            corner, weight = weigh_block(total, one, boxes, boxes, psf, noise)
            used = (
                _flank(one[0], boxes[0], weight.shape, psf)
                if flank_first
                else np.ones(weight.shape, np.bool_)
            )
            for turn in range(ROUNDS):
                if turn > 0 or not flank_first:
                    strength = _choose(frame, total, one[0], boxes[0], weight, psf, used)
                if strength < LEAST_STRENGTH:
                    break
                for k in range(weight.shape[0]):
                    for j in range(weight.shape[1]):
                        if not used[k, j]:
                            weight[k, j] = 0.0
                pixels = Pixels(frame, total, weight, corner)
                ended, _ = fit_block(pixels, one, boxes, Prior(0.0, 0.0), psf, int(ITERATIONS), errors, good)
                if ended != CONVERGED:
                    break
                _, weight = weigh_block(total, one, boxes, boxes, psf, noise)
            good[0, 0] *= used.size / max(int(used.sum()), 1)
            far = max(abs(one[0, X] - start[X]), abs(one[0, Y] - start[Y])) > LARGEST_MOVE_PX
            if strength >= LEAST_STRENGTH and ended == CONVERGED and not far and good[0, 0] < best:
                theta[i], covariance[i], fit[i] = one[0], errors[0], good[0]
                best = good[0, 0]
        put(total, theta[i], 1.0, psf)


@njit(cache=True, nogil=True)
def _flank(theta: FloatArray, box: IntArray, shape: tuple[int, int], psf: Psf) -> BoolArray:
    """The pixels (H', W') of a rectangle where the particle is not strongest: those that a clipped image has."""
    render(theta, box, psf, False, psf.drawn)
    pitch, most = pitch_of(shape[1]), 0.0
    for i in range(shape[0]):
        for j in range(shape[1]):
            most = max(most, abs(psf.drawn[0, i * pitch + j]))
    used = np.ones(shape, np.bool_)
    for i in range(shape[0]):
        for j in range(shape[1]):
            used[i, j] = abs(psf.drawn[0, i * pitch + j]) <= CORE * most
    return used


@njit(cache=True, nogil=True)
def _choose(
    frame: Float32Array,
    total: Float32Array,
    theta: FloatArray,
    box: IntArray,
    weight: Float32Array,
    psf: Psf,
    used: BoolArray,
) -> float:
    """Choose anew which pixels are `used` (H', W'), those that are not off; returns the brightness that
    they show, in its standard errors.

    The plane of background is that of the pixels that were used before.
    """
    tall, wide = weight.shape
    render(theta, box, psf, False, psf.drawn)
    pitch = pitch_of(wide)
    off = np.empty((tall, wide))
    scale = 2.0 / max(tall, wide)
    matrix, right = np.zeros((3, 3)), np.zeros(3)
    term, ground, lower = np.ones(3), np.zeros(3), np.zeros((3, 3))
    for i in range(tall):
        term[2] = scale * (i - 0.5 * (tall - 1))
        for j in range(wide):
            row, column = box[TOP] + i, box[LEFT] + j
            off[i, j] = frame[row, column] - total[row, column] - theta[A] * psf.drawn[0, i * pitch + j]
            term[1] = scale * (j - 0.5 * (wide - 1))
            for a in range(3):
                if used[i, j]:
                    right[a] += weight[i, j] * term[a] * off[i, j]
                    for b in range(3):
                        matrix[a, b] += weight[i, j] * term[a] * term[b]
    if not solve(matrix, right, 0.0, ground, lower):
        return 0.0
    for i in range(tall):
        for j in range(wide):
            plane = ground[0] + ground[1] * scale * (j - 0.5 * (wide - 1))
            plane += ground[2] * scale * (i - 0.5 * (tall - 1))
            off[i, j] = (off[i, j] - plane) * np.sqrt(weight[i, j])
    power = 0.0
    for i in range(tall):
        for j in range(wide):
            around, count = 0.0, 0
            for a in range(max(i - 1, 0), min(i + 2, tall)):
                for b in range(max(j - 1, 0), min(j + 2, wide)):
                    around += off[a, b]
                    count += 1
            used[i, j] = abs(around) <= OFF_SIGMAS * np.sqrt(count)
            if used[i, j]:
                power += weight[i, j] * psf.drawn[0, i * pitch + j] ** 2
    return float(abs(theta[A]) * np.sqrt(power))
