"""How many particles a group has: the likelihoods of one more and of one fewer are compared.

The detector may have missed a particle beside a brighter one, taken two for one, or one for two. Each such change
is fitted to the same voxels, and stays if it makes the group more probable. With n particles in a voxel on average
and amplitudes up to A_most, one more has the prior density n / A_most in its four parameters, so that its odds are
(Laplace's approximation; MacKay 2003, Information Theory, Inference, and Learning Algorithms, chapter 28)

    n / A_most  (2 pi)^2  sqrt(det F / det F')  L' / L                                     (1)

with F the Fisher information of `joint_fit` (4), L the likelihood, and ' for one more. Brighter particles, with
smaller errors, thus need to explain more: chance has more places to put them. The volume that a particle's errors
fill is never taken as larger than that of its image, (4 pi)^(3/2) / 8 times the product of the PSF's sizes.

A real image differs from the PSF, and what the PSF leaves over of a bright particle must not be taken for another.
Of -2 ln L, a group may thus have misfit^2 sum (light^2 / V) too much at a place, with `misfit` of `VolumePsf`; one
more particle has to explain more than that.
"""

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
from engines.volumes.fit.rendering import WIDE, set_box, volume_of
from engines.volumes.fit.residual_search import elongation, missed
from engines.volumes.fit.windows import boxes_of, fill_residual, fit_group, room_for

TRY_MISSED = 3.0
"""Standard deviations of the residual from which one more particle is tried; fitted, its -2 ln L is 9 or more."""
TRY_TWO = 2.2
"""Standard deviations of `elongation` from which two are tried in place of one: about 1 of 10 single particles."""
NEAR_SIGMAS = 3.0
"""Distance, in standard deviations of the PSF, within which a particle that is left out lets its neighbour move."""
SURE = 4.6
"""2 ln of the odds from which one more is added, 10 to 1: amplitudes up to A_most are not all as probable."""
LEAST_PART = 0.1
"""Part of the brightest particle of the group that one more must have: fainter ones are where real images are
unlike the PSF."""
PLACE = 5.57
"""(4 pi)^(3/2) / 8: volume of a Gaussian's square over the product of its standard deviations."""
CHANCE = 3.0
"""Standard deviations of a reduced chi-square, sqrt(2 / voxels), above 1 from which images are unlike the PSF, and
gains are divided by it."""


@njit(cache=True, nogil=True)
def misfit_of(size: int, parameters: int, room: Room) -> float:
    """The reduced chi-square of a window where it is beyond what noise gives, else 1."""
    squares, count = 0.0, 0
    for t in range(size):
        squares += room.weight[t] * room.residual[t] ** 2
        count += room.weight[t] > 0.0
    free = max(count - parameters, 1)
    reduced = squares / free
    return reduced if reduced > 1.0 + CHANCE * np.sqrt(2.0 / free) else 1.0


@njit(cache=True, nogil=True)
def misfit_budget(box: IntArray, window: IntArray, ground: float, psf: KernelPsf, room: Room) -> float:
    """-2 ln L in a box that the particles' light may leave over because it is unlike the PSF.

    `room` holds the light and the weights of `fill_residual`.
    """
    if psf.misfit == 0.0:
        return 0.0
    tall, wide, energy, even = window[3] - window[2], window[5] - window[4], 0.0, np.float32(ground)
    for i in range(box[0] - window[0], box[1] - window[0]):
        for j in range(box[2] - window[2], box[3] - window[2]):
            start = (i * tall + j) * wide - window[4]
            for t in range(start + box[4], start + box[5]):
                energy += room.weight[t] * (room.light[t] - room.base[t] - even) ** 2
    return psf.misfit * psf.misfit * energy


@njit(cache=True, nogil=True)
def needed(information: float, brightest: float, stack: Stack, psf: KernelPsf) -> float:
    """-2 ln L that one more particle has to explain for even odds (1).

    `information` is ln det F' - ln det F; A_most is twice the `brightest` amplitude of the group.
    """
    image = PLACE * psf.sigma[0] * psf.sigma[1] * psf.sigma[2]
    volume = 4.0 * np.log(2.0 * np.pi) - information - 2.0 * np.log(max(2.0 * brightest, 1e-30))
    return float(-2.0 * np.log(stack.density) - min(volume, 2.0 * np.log(image)))


@njit(cache=True, nogil=True)
def _odds(
    theta: FloatArray,
    more: FloatArray,
    ground: FloatArray,
    others: Float32Array,
    stack: Stack,
    psf: KernelPsf,
    room: Room,
) -> tuple[float, Room]:
    """2 ln of the odds (1) of the particles `more` (n + 1, 4), fitted in place, over `theta` (n, 4)."""
    n = theta.shape[0]
    boxes = np.empty((n + 1, BOX), np.int64)
    for k in range(n):
        set_box(theta[k], stack.heights, stack.image.shape, psf, WIDE, boxes[k])
    set_box(more[n], stack.heights, stack.image.shape, psf, WIDE, boxes[n])
    room = room_for(boxes, stack, psf, room)
    window = np.empty(BOX, np.int64)
    open_window(stack, others, boxes, window, room)
    size = PARTICLE * n + 1
    held, covariance, plain = np.zeros(size, np.bool_), np.empty((size, size)), np.empty(1)
    plain[0] = ground[0]
    fewer = theta.copy()
    before, information = fit_window(fewer, plain, held, boxes[:n], window, stack, psf, room, covariance)
    plain[0] = ground[0]
    size += PARTICLE
    held, covariance = np.zeros(size, np.bool_), np.empty((size, size))
    after, another = fit_window(more, plain, held, boxes, window, stack, psf, room, covariance)
    fill_residual(more, plain, boxes, window, stack, psf, room)
    budget = misfit_budget(boxes[n], window, plain[0], psf, room)
    gain = (before - after - budget) / misfit_of(volume_of(window), size, room)
    brightest = 0.0
    for k in range(n + 1):
        brightest = max(brightest, more[k, A])
    return gain - needed(another - information, brightest, stack, psf), room


@njit(cache=True, nogil=True)
def find_more(
    theta: FloatArray,
    n: int,
    ground: FloatArray,
    others: Float32Array,
    stack: Stack,
    psf: KernelPsf,
    room: Room,
) -> tuple[int, Room]:
    """Add what the residual of a group shows to its first `n` particles `theta` (N, 4); returns how many there are.

    The rest of `theta` is room for new ones.
    """
    window, place, half, best = np.empty(BOX, np.int64), np.empty(PARTICLE), np.empty(3), np.empty(3)
    while n < theta.shape[0]:
        boxes = boxes_of(theta[:n], stack, psf)
        room = room_for(boxes, stack, psf, room)
        open_window(stack, others, boxes, window, room)
        fill_residual(theta[:n], ground, boxes, window, stack, psf, room)
        strength, which = missed(theta[:n], window, stack, psf, room, place), -1
        longest, brightest = TRY_TWO, 0.0
        for k in range(n):
            brightest = max(brightest, theta[k, A])
            long = elongation(theta[k], boxes[k], window, stack, psf, room, half)
            if long > longest and theta[k, A] > 0.0:
                longest, which = long, k
                for axis in range(3):
                    best[axis] = half[axis]
        found = False
        for attempt in range(2):
            trial = theta[: n + 1].copy()
            if attempt == 0 and which >= 0:
                trial[n] = theta[which]
                for axis in range(3):
                    trial[which, axis] -= best[axis]
                    trial[n, axis] += best[axis]
                trial[which, A] *= 0.5
                trial[n, A] *= 0.5
            elif attempt == 1 and strength > TRY_MISSED:
                trial[n] = place
            else:
                continue
            odds, room = _odds(theta[:n], trial, ground, others, stack, psf, room)
            least = trial[n, A]
            if attempt == 0:
                least = min(least, trial[which, A])
            if odds > SURE and least > LEAST_PART * brightest:
                theta[: n + 1] = trial
                n += 1
                room = fit_group(theta[:n], ground, others, stack, psf, room)
                found = True
                break
        if not found:
            break
    return n, room


@njit(cache=True, nogil=True)
def nearest(theta: FloatArray, k: int, psf: KernelPsf) -> int:
    """The particle nearest to `k`, within `NEAR_SIGMAS`; -1 if there is none."""
    least, found = NEAR_SIGMAS**2, -1
    for m in range(theta.shape[0]):
        d2 = 0.0
        for axis in range(3):
            d2 += ((theta[m, axis] - theta[k, axis]) / psf.sigma[axis]) ** 2
        if m != k and d2 < least:
            least, found = d2, m
    return found


@njit(cache=True, nogil=True)
def without(
    theta: FloatArray,
    k: int,
    beside: int,
    ground: FloatArray,
    boxes: IntArray,
    window: IntArray,
    stack: Stack,
    psf: KernelPsf,
    room: Room,
    fewer: FloatArray,
) -> tuple[float, float]:
    """-2 ln L of the group without particle `k`, and ln det F; fills `fewer` (n - 1, 4), the others as fitted then.

    Particle `beside` starts from the light of both and all move; where it is -1, only amplitudes are fitted.
    """
    n = theta.shape[0]
    total = PARTICLE * (n - 1) + 1
    held, covariance, plain = np.zeros(total, np.bool_), np.empty((total, total)), np.empty(1)
    kept = np.empty((n - 1, BOX), np.int64)
    for m in range(n):
        if m == k:
            continue
        row = m - (m > k)
        for i in range(PARTICLE):
            fewer[row, i] = theta[m, i]
            held[PARTICLE * row + i] = beside < 0 and i != A
        for i in range(BOX):
            kept[row, i] = boxes[m, i]
        if m == beside:
            first, second = max(theta[m, A], 0.0), max(theta[k, A], 0.0)
            if first + second > 0.0:
                for i in range(3):
                    fewer[row, i] += (theta[k, i] - theta[m, i]) * second / (first + second)
                fewer[row, A] = first + second
                set_box(fewer[row], stack.heights, stack.image.shape, psf, WIDE, kept[row])
                for axis in range(3):  # of the window, which has been opened
                    kept[row, 2 * axis] = max(kept[row, 2 * axis], window[2 * axis])
                    kept[row, 2 * axis + 1] = min(kept[row, 2 * axis + 1], window[2 * axis + 1])
    plain[0] = ground[0]
    return fit_window(fewer, plain, held, kept, window, stack, psf, room, covariance)
