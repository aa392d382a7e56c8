"""Particles whose images are partly unlike the model, fitted again without the pixels that are.

Where an image is at the end of what a camera can show (`limits`), or dirt lies in a part of it, the rest still says
where the particle is. Of a limit the pixels are left out that are beyond it by the model; of dirt those that lie
together and are off by more than noise (a skipped estimate; Huber & Ronchetti 2009, Robust Statistics, ch. 1).
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
from engines.refine.joint_fit import CONVERGED, ITERATIONS, SMALL_GAIN, fit_block, weigh_block
from engines.refine.limits import (
    HIGH,
    LIMIT_COST,
    LOW,
    chi_square_within,
    expect,
    find_limits,
    within_limits,
)
from engines.refine.normal_equations import GROUND
from engines.refine.rendering import BOTTOM, BOX, LEFT, RIGHT, SPARE_UM, TOP, A, X, Y, put, render, set_box
from engines.refine.spline import pitch_of

PASSES = 2
"""Over the particles of a frame."""
ROUNDS = 4
"""How often pixels are chosen anew, with the particle where the last fit has it."""
LIMIT_ROUNDS = 8
"""The same for limits; fewer where the choice stays the same before."""
OFF_SIGMAS = 3.5
"""Standard errors of the mean of 3 x 3 pixels from which their middle is left out: 0.05 % of the pixels of an image
that is like the model."""
CORE = 0.5
"""Part of the peak beyond which a pixel is in the core: the flank outside says where the particle is, how large and
how bright it is."""
LEAST_STRENGTH = 5.0
"""Brightness over its standard error that the pixels kept have to give: of a particle of which less is seen, the
first fit says as much."""
LEFT_OUT_COST = 4.0
"""Chi-square that a pixel left out counts for beside limits, which explain each with 1 or less."""


@njit(cache=True, nogil=True)
def refit_clipped(
    frame: Float32Array,
    total: Float32Array,
    particles: Particles,
    which: BoolArray,
    unlike: BoolArray,
    ends: FloatArray,
    psf: Psf,
    noise: Noise,
) -> BoolArray:
    """Fit `which` (N,) of the `particles` that reach limits, or are `unlike` (N,) the model, again, each by itself,
    in place; returns which (N,) reach limits.

    `total` (H, W) stays the image of all, `ends` (2,) are those of `limits.ends_of`. Two starts are tried: the
    first fit, and one to the flank of the image alone, as what is clipped is its core. What explains the pixels
    that it keeps best stays, the first fit included; a limit counts where it explains the whole image better. What
    is nothing but background at a limit is no longer `usable`. The brightest come first; where limits were found
    all is done again, as fainter ones beside have changed.
    """
    theta, usable = particles.theta, particles.usable
    limited = np.zeros(theta.shape[0], np.bool_)
    order = np.argsort(-theta[:, A])
    for _ in range(PASSES):
        before, there = limited.copy(), usable.copy()
        for i in order:
            if which[i] and usable[i]:
                put(total, theta[i], -1.0, psf)
                odd = unlike[i] or limited[i]
                cost = _refit(frame, total, particles, i, limited, odd, False, ends, psf, noise)
                if usable[i] and unlike[i]:
                    _try_alone(frame, total, particles, i, cost, limited, unlike, ends, psf, noise)
                if usable[i]:
                    put(total, theta[i], 1.0, psf)
        if (before == limited).all() and (there == usable).all():
            break
    return limited


@njit(cache=True, nogil=True)
def _try_alone(
    frame: Float32Array,
    total: Float32Array,
    particles: Particles,
    i: int,
    cost: float,
    limited: BoolArray,
    unlike: BoolArray,
    ends: FloatArray,
    psf: Psf,
    noise: Noise,
) -> None:
    """Try particle `i` of the `particles` (N) without fainter ones beside it that are `unlike` (N,) the model as
    well: where a background ends at a limit there seem to be some. They go where limits explain more, at less than
    the `cost`."""
    theta, usable = particles.theta, particles.usable
    rivals = np.zeros(usable.size, np.bool_)
    own, other = np.empty(BOX, np.int64), np.empty(BOX, np.int64)
    set_box(theta[i], frame.shape, psf, SPARE_UM, own)
    for j in range(usable.size):
        if j == i or not (usable[j] and unlike[j] and theta[j, A] < theta[i, A]):
            continue
        set_box(theta[j], frame.shape, psf, SPARE_UM, other)
        beside = other[LEFT] < own[RIGHT] and own[LEFT] < other[RIGHT]
        rivals[j] = beside and other[TOP] < own[BOTTOM] and own[TOP] < other[BOTTOM]
    if not rivals.any():
        return
    for k in np.flatnonzero(rivals):
        put(total, theta[k], -1.0, psf)
    kept = theta[i].copy(), particles.covariance[i].copy(), particles.fit[i].copy(), limited[i]
    alone = _refit(frame, total, particles, i, limited, True, True, ends, psf, noise)
    if limited[i] and alone < cost:
        usable[rivals] = False
        return
    theta[i], particles.covariance[i], particles.fit[i], limited[i] = kept
    usable[i] = True
    for k in np.flatnonzero(rivals):
        put(total, theta[k], 1.0, psf)


@njit(cache=True, nogil=True)
def _refit(
    frame: Float32Array,
    total: Float32Array,
    particles: Particles,
    i: int,
    limited: BoolArray,
    unlike: bool,
    by_limits: bool,
    ends: FloatArray,
    psf: Psf,
    noise: Noise,
) -> float:
    """Fit particle `i` of the `particles` (N), which is not in `total` (H, W), again, or only `by_limits`; returns
    the cost of the explanation that is chosen, in chi-square: infinite where there is none."""
    theta, covariance, fit = particles.theta, particles.covariance, particles.fit
    boxes = np.empty((1, BOX), np.int64)
    errors, good, limits = np.empty((1, 4, 4)), np.empty((1, 2)), np.empty(2)
    start = theta[i].copy()
    set_box(start, frame.shape, psf, SPARE_UM, boxes[0])
    one = start.reshape(1, 4).copy()
    _, weight = weigh_block(total, one, boxes, boxes, psf, noise)
    used, mean = np.ones(weight.shape, np.bool_), np.empty(weight.shape)
    if not expect(frame, total, start, boxes[0], weight, psf, used, mean):
        return np.inf
    count = find_limits(frame, mean, boxes[0], weight, ends, limits)
    if not (unlike or count > 0):
        return np.inf
    free = max(used.size - 4 - GROUND, 1)
    cost = count * LIMIT_COST if limited[i] else 0.0
    if not limited[i]:
        limits[LOW], limits[HIGH] = -np.inf, np.inf
    cost += chi_square_within(frame, mean, boxes[0], weight, limits)
    best = cost / free
    if by_limits:
        cost, limited[i] = np.inf, False
    for flank_first in (False, True):
        if flank_first and not unlike:
            continue
        one[0] = start
        _set_start(one[0], boxes[0], psf, flank_first, used)
        if unlike:
            ended = _fit_without_odd(
                frame, total, one, boxes, psf, noise, used, mean, not flank_first, errors, good
            )
            left_out = used.size - int(used.sum())
            ended = ended and not _is_far(one[0], start)
            reduced = good[0, 0] * used.size / max(used.size - left_out, 1)
            odd_cost = good[0, 0] * free + LEFT_OUT_COST * left_out
            if ended and not by_limits and reduced < best and not (limited[i] and odd_cost > cost):
                theta[i], covariance[i], fit[i] = one[0], errors[0], good[0]
                fit[i, 0] = best = reduced
                cost, limited[i] = odd_cost, False
            if not ended:
                one[0] = start
                _set_start(one[0], boxes[0], psf, flank_first, used)
        found = _fit_within_limits(
            frame, total, one, boxes, psf, noise, used, mean, ends, limits, errors, good
        )
        if found < cost - SMALL_GAIN and not _is_far(one[0], start):
            if one[0, A] == 0.0:
                if not by_limits:
                    particles.usable[i], limited[i] = False, False
                    return found
                continue
            theta[i], covariance[i], fit[i] = one[0], errors[0], good[0]
            fit[i, 0] = good[0, 0] * used.size / max(int(used.sum()), 1)
            cost, limited[i] = found, True
            best = min(best, fit[i, 0])
    return cost


@njit(cache=True, nogil=True)
def _is_far(theta: FloatArray, start: FloatArray) -> bool:
    return bool(max(abs(theta[X] - start[X]), abs(theta[Y] - start[Y])) > LARGEST_MOVE_PX)


@njit(cache=True, nogil=True)
def _fit_to(
    frame: Float32Array,
    total: Float32Array,
    one: FloatArray,
    boxes: IntArray,
    psf: Psf,
    noise: Noise,
    used: BoolArray,
    errors: FloatArray,
    good: FloatArray,
) -> bool:
    """Fit the particle `one` (1, 4) in place to pixels `used` (H', W') of its rectangle; whether that converged."""
    corner, weight = weigh_block(total, one, boxes, boxes, psf, noise)
    for k in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            if not used[k, j]:
                weight[k, j] = 0.0
    pixels = Pixels(frame, total, weight, corner)
    ended, _ = fit_block(pixels, one, boxes, Prior(0.0, 0.0), psf, int(ITERATIONS), errors, good)
    return bool(ended == CONVERGED)


@njit(cache=True, nogil=True)
def _fit_without_odd(
    frame: Float32Array,
    total: Float32Array,
    one: FloatArray,
    boxes: IntArray,
    psf: Psf,
    noise: Noise,
    used: BoolArray,
    mean: FloatArray,
    choose_first: bool,
    errors: FloatArray,
    good: FloatArray,
) -> bool:
    """Fit `one` (1, 4) without the pixels that are off, which leave `used` (H', W'); whether there is a result."""
    for turn in range(ROUNDS):
        if turn > 0 or choose_first:
            _, weight = weigh_block(total, one, boxes, boxes, psf, noise)
            if not expect(frame, total, one[0], boxes[0], weight, psf, used, mean):
                return False
            _leave_out_odd(frame, mean, boxes[0], weight, used)
            if _strength(one[0], weight, used, psf) < LEAST_STRENGTH:
                return False
        if not _fit_to(frame, total, one, boxes, psf, noise, used, errors, good):
            return False
    return True


@njit(cache=True, nogil=True)
def _fit_within_limits(
    frame: Float32Array,
    total: Float32Array,
    one: FloatArray,
    boxes: IntArray,
    psf: Psf,
    noise: Noise,
    used: BoolArray,
    mean: FloatArray,
    ends: FloatArray,
    limits: FloatArray,
    errors: FloatArray,
    good: FloatArray,
) -> float:
    """Fit `one` (1, 4) to the pixels within limits, which are then those `used` (H', W'); returns what chi-square
    and limits cost together, infinite where there are no limits or no result.

    A particle of which the pixels within limits show too little is tried as none, with a brightness of 0.
    """
    cost = np.inf
    for turn in range(LIMIT_ROUNDS):
        _, weight = weigh_block(total, one, boxes, boxes, psf, noise)
        if not expect(frame, total, one[0], boxes[0], weight, psf, used, mean):
            return np.inf
        count = find_limits(frame, mean, boxes[0], weight, ends, limits)
        if count == 0:
            return np.inf
        cost = chi_square_within(frame, mean, boxes[0], weight, limits) + count * LIMIT_COST
        if within_limits(mean, limits, used) and turn > 0:
            break
        if one[0, A] == 0.0:
            continue
        if _strength(one[0], weight, used, psf) < LEAST_STRENGTH:
            one[0, A] = 0.0
            continue
        if not _fit_to(frame, total, one, boxes, psf, noise, used, errors, good):
            return np.inf
    return cost


@njit(cache=True, nogil=True)
def _set_start(theta: FloatArray, box: IntArray, psf: Psf, flank: bool, used: BoolArray) -> None:
    """Have all pixels (H', W') of a rectangle `used`, or, for the `flank`, those where the particle is not
    strongest."""
    used[:] = True
    if not flank:
        return
    render(theta, box, psf, False, psf.drawn)
    pitch, most = pitch_of(used.shape[1]), 0.0
    for i in range(used.shape[0]):
        for j in range(used.shape[1]):
            most = max(most, abs(psf.drawn[0, i * pitch + j]))
    for i in range(used.shape[0]):
        for j in range(used.shape[1]):
            used[i, j] = abs(psf.drawn[0, i * pitch + j]) <= CORE * most


@njit(cache=True, nogil=True)
def _strength(theta: FloatArray, weight: Float32Array, used: BoolArray, psf: Psf) -> float:
    """The brightness that the pixels `used` (H', W') show, in its standard errors; the particle was drawn last."""
    power, pitch = 0.0, pitch_of(weight.shape[1])
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            if used[i, j]:
                power += weight[i, j] * psf.drawn[0, i * pitch + j] ** 2
    return float(abs(theta[A]) * np.sqrt(power))


@njit(cache=True, nogil=True)
def _leave_out_odd(
    frame: Float32Array, mean: FloatArray, box: IntArray, weight: Float32Array, used: BoolArray
) -> None:
    """Choose anew which pixels are `used` (H', W'): those that are not off the expected `mean` (H', W')."""
    tall, wide = weight.shape
    off = np.empty((tall, wide))
    for i in range(tall):
        for j in range(wide):
            off[i, j] = (frame[box[TOP] + i, box[LEFT] + j] - mean[i, j]) * np.sqrt(weight[i, j])
    for i in range(tall):
        for j in range(wide):
            around, count = 0.0, 0
            for a in range(max(i - 1, 0), min(i + 2, tall)):
                for b in range(max(j - 1, 0), min(j + 2, wide)):
                    around += off[a, b]
                    count += 1
            used[i, j] = abs(around) <= OFF_SIGMAS * np.sqrt(count)
