"""What is said of each particle of a group: its standard errors, whether it is there, how well it is described."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.volumes.fit.arguments import (
    BOX,
    PARTICLE,
    A,
    Float32Array,
    FloatArray,
    IntArray,
    KernelPsf,
    Room,
    Stack,
)
from engines.volumes.fit.joint_fit import fit_window, open_window
from engines.volumes.fit.particle_count import misfit_budget, misfit_of, nearest, needed, without
from engines.volumes.fit.rendering import volume_of
from engines.volumes.fit.windows import boxes_of, fill_residual, room_for

RATIO, CHI_SQUARE = range(2)
NUMBERS = 2
"""What is said beside the covariance."""
PATTERN = 23.0
"""Numbers that an image's difference from the PSF has where its light is: the volume of a Gaussian's square, 5.57
standard deviations cubed, at 1.6 nodes of a measured PSF per standard deviation. So a misfit moves each parameter
by the root of budget / `PATTERN` of its standard errors."""


@njit(cache=True, nogil=True)
def chi_square_of(box: IntArray, window: IntArray, room: Room) -> float:
    """The reduced chi-square of a box."""
    tall, wide, squares, count = window[3] - window[2], window[5] - window[4], 0.0, 0
    for i in range(box[0] - window[0], box[1] - window[0]):
        for j in range(box[2] - window[2], box[3] - window[2]):
            start = (i * tall + j) * wide - window[4]
            for t in range(start + box[4], start + box[5]):
                squares += room.weight[t] * room.residual[t] ** 2
                count += room.weight[t] > 0.0
    return float(squares / max(count - PARTICLE - 1, 1))


@njit(cache=True, nogil=True)
def judge_group(
    theta: FloatArray,
    n: int,
    ground: FloatArray,
    source: IntArray,
    others: Float32Array,
    stack: Stack,
    psf: KernelPsf,
    room: Room,
    covariance: FloatArray,
    fit: FloatArray,
) -> tuple[int, Room]:
    """Fit the first `n` particles `theta` (N, 4) once more, leave out those that explain too little beside another,
    and fill `covariance` (N, 4, 4) and `fit` (N, 2) of the rest; returns how many these are.

    `fit` is the log-likelihood ratio and the reduced chi-square. The ratio is 2 ln of the likelihood with the
    particle over that without it, where the amplitudes of the others and the ground are fitted again and, near
    another particle, all places too; negative for a particle that takes light away. `source` (N,) moves along.
    """
    window, budget = np.empty(BOX, np.int64), np.empty(n)
    while n > 0:
        boxes = boxes_of(theta[:n], stack, psf)
        room = room_for(boxes, stack, psf, room)
        open_window(stack, others, boxes, window, room)
        size, total = volume_of(window), PARTICLE * n + 1
        whole, held = np.empty((total, total)), np.zeros(total, np.bool_)
        best, information = fit_window(theta[:n], ground, held, boxes, window, stack, psf, room, whole)
        fill_residual(theta[:n], ground, boxes, window, stack, psf, room)
        misfit = misfit_of(size, total, room)
        for k in range(n):
            budget[k] = misfit_budget(boxes[k], window, ground[0], psf, room)
            more = 1.0 + budget[k] / PATTERN
            for i in range(PARTICLE):
                for j in range(PARTICLE):
                    covariance[k, i, j] = more * whole[PARTICLE * k + i, PARTICLE * k + j]
            fit[k, CHI_SQUARE] = chi_square_of(boxes[k], window, room)
        fewer, kept = np.empty((n - 1, PARTICLE)), np.empty((n - 1, PARTICLE))
        worst, least, brightest = -1, 0.0, 0.0
        for k in range(n):
            brightest = max(brightest, theta[k, A])
        for k in range(n):
            beside = nearest(theta[:n], k, psf)
            found, less = without(theta[:n], k, beside, ground, boxes, window, stack, psf, room, fewer)
            ratio = max((found - best) / misfit, 0.0)
            fit[k, RATIO] = ratio if theta[k, A] > 0.0 else -ratio
            if beside < 0 and (n == 1 or budget[k] == 0.0):
                continue
            odds = fit[k, RATIO] - budget[k] / misfit
            if beside >= 0:
                odds -= needed(information - less, brightest, stack, psf)
            if odds < least:
                worst, least = k, odds
                kept[:] = fewer
        if worst < 0:
            break
        n -= 1
        theta[:n] = kept
        for k in range(worst, n):
            source[k] = source[k + 1]
    return n, room
