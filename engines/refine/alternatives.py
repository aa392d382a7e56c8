"""Other numbers and depths of overlapping particles, each fitted to the same pixels and given a score.

The score of n particles is chi-square over the frame's typical one, plus a cost of each particle:

    S = chi2 / chi2_typical + sum_k [COST + min((A_k - A_0)^2 / (s^2 + var A_k), MOST_SURPRISE)]    (1)

with chi2 as (3) in `block` but without its second term, and A_0, s the frame's typical brightness and its SD. The
lower score is the better explanation, as in a likelihood ratio test or with the criteria of Akaike and Schwarz.

Real particles differ from the model in size, shape and place in the field. A second particle takes much of the
chi-square away that a bright one has for that reason, so that one more must lower chi2 / chi2_typical by

    max(COST, max(MIMICS e^2, LEAST_MISFIT) sum_k A_k^2 / var A_k / chi2_typical)    (2)

with e^2 the misfit that is typical on the frame (`typical.misfit_of`). This is COST for images as noisy as those of
the simulated microscope.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from engines.refine.arguments import FloatArray, IntArray, Pixels, Prior, Psf, Typical
from engines.refine.joint_fit import CONVERGED, ITERATIONS, fit_block
from engines.refine.rendering import (
    BOTTOM,
    BOX,
    LEFT,
    RIGHT,
    TOP,
    A,
    X,
    Y,
    Z,
    add,
    best_brightness,
    boxes_of,
    render,
    set_box,
)

COST = 32.0
"""Chi-square that one more particle has to take away. It has four parameters more: noise alone reaches 32 at one
place with a probability of 2e-6, and there are very many places. Lower finds more overlapped and more ghost
particles."""
MIMICS = 4.0
"""e^2 of the worst particles over the typical one: 90 % of real beads are below 4 times the median. Lower cuts more
of them in two; higher loses overlapped ones where the model is wrong, and none where it is right."""
LEAST_MISFIT = 0.005
"""Squared part of an image's norm, (7 %)^2, by which that of a real particle may always differ from the model's. On
the real beads of docs/network.md those that were cut in two for this reason differ by 0.003 and less, known pairs
by 0.04 and more. It counts from a signal-to-noise ratio of 80 over all pixels on."""
MOST_SURPRISE = 44.0
"""The most that an unusual brightness adds to (1): beyond 6.6 standard deviations all are equally unlikely, as such
particles (dirt, aggregates) exist. Lower splits fewer bright images, which may be two particles at one place."""
FAINT_SIGMAS = 5.0
"""Standard errors of the brightness below which a particle is tried without. Only decides what is tried, so higher
costs time; (1) decides what stays."""
UNUSUAL_SIGMAS = 3.0
"""SDs of the frame's brightness by which a particle has to be fainter than typical to be tried without; as
above."""
LARGEST_MOVE_PX = 4.0
"""px in the plane by which a particle may leave its start in such a fit: more than in `depth_search`, as these
starts are guesses."""
LEAST_SIDE_PX = 3
"""px of a rectangle (cut off by the edge of the frame) below which nothing is fitted to it."""
ASIDE_PX, ASIDE_UM = 1.5, 12.0
"""Half the distance, along x or y (px) or z (um), of the two equal particles that one is split into. Only a start:
the fit finds its way from here to the place, so it matters little."""
GRID_PX, GRID_UM = 3.0, 15.0
"""Steps in the plane (px) and in depth (um) of the places where a second particle is looked for: within the reach
of the fit, two or three of its longest steps. Finer costs time with the third power."""
TRIED = 2
"""Most of these places that are fitted, the ones that explain most; each costs a fit."""
DEPTH_UM, OWN_DEPTH_UM = 10.0, 15.0
"""um: steps of the other depths that are tried, and how far from its own depth they begin."""


class State(NamedTuple):
    """Particles (n, 4), their covariances (n, 4, 4) and fits (n, 2), what each was (n,), and the score."""

    theta: FloatArray
    covariance: FloatArray
    fit: FloatArray
    source: IntArray
    score: float


@njit(cache=True, nogil=True, inline="always")
def _score(chi: float, theta: FloatArray, covariance: FloatArray, prior: Prior, typical: Typical) -> float:
    """The score (1) of a fit that ended with a chi-square of `chi`, to which the `prior` has added its term."""
    extra = 0.0
    for k in range(theta.shape[0]):
        off = (theta[k, A] - typical.brightness) ** 2
        chi -= prior.precision * off
        extra += min(off / (typical.spread**2 + max(covariance[k, A, A], 0.0)), MOST_SURPRISE) + COST
    return float(chi / typical.chi_square + extra)


@njit(cache=True, nogil=True)
def fitted(pixels: Pixels, start: FloatArray, source: IntArray, psf: Psf, typical: Typical) -> State:
    """The `State` after a fit from `start` (n, 4); its score is infinite where the fit did not converge or left."""
    theta = start.copy()
    n = theta.shape[0]
    covariance, fit = np.zeros((n, 4, 4)), np.zeros((n, 2))
    boxes = boxes_of(theta, pixels.frame.shape, psf)
    for k in range(n):
        tall, wide = boxes[k, BOTTOM] - boxes[k, TOP], boxes[k, RIGHT] - boxes[k, LEFT]
        if tall < LEAST_SIDE_PX or wide < LEAST_SIDE_PX:
            return State(theta, covariance, fit, source, np.inf)
    prior = Prior(typical.brightness, 0.0 if n == 1 else 1.0 / typical.spread**2)
    ended, chi = fit_block(pixels, theta, boxes, prior, psf, int(ITERATIONS), covariance, fit)
    value = _score(chi, theta, covariance, prior, typical)
    for k in range(n):
        moved = max(abs(theta[k, X] - start[k, X]), abs(theta[k, Y] - start[k, Y]))
        if ended != CONVERGED or moved > LARGEST_MOVE_PX or theta[k, A] <= 0.0:
            value = np.inf
    return State(theta, covariance, fit, source, value)


@njit(cache=True, nogil=True)
def with_one_more(theta: FloatArray, more: FloatArray) -> FloatArray:
    """Particles (n + 1, 4): those (n, 4), and another (4,)."""
    out = np.empty((theta.shape[0] + 1, 4))
    out[:-1] = theta
    out[-1] = more
    return out


@njit(cache=True, nogil=True)
def mimicked(now: State, place: FloatArray, shape: tuple[int, int], psf: Psf, typical: Typical) -> float:
    """Score that a further particle at `place` (4,) may take away because images of those there are unlike the
    model.

    (2) for all particles whose image the place is in.
    """
    power, box = 0.0, np.empty(BOX, np.int64)
    for k in range(now.theta.shape[0]):
        set_box(now.theta[k], shape, psf, 0.0, box)
        inside = box[LEFT] <= place[X] < box[RIGHT] and box[TOP] <= place[Y] < box[BOTTOM]
        if inside and now.covariance[k, A, A] > 0.0:
            power += now.theta[k, A] ** 2 / now.covariance[k, A, A]
    unlike = max(MIMICS * typical.misfit, LEAST_MISFIT) * power / typical.chi_square
    return float(max(0.0, unlike - COST))


@njit(cache=True, nogil=True)
def explains(now: State, more: State, shape: tuple[int, int], psf: Psf, typical: Typical) -> bool:
    """Whether `more` has a better score, also than what a misfit mimics, and removes half of the excess, if there
    is.

    Particles of another kind stay unlike the model however many particles of this kind are put there.
    """
    if not more.score < now.score - mimicked(now, more.theta[-1], shape, psf, typical):
        return False
    before, after = now.fit[:, 0].max(), more.fit[:, 0].max()
    return bool(
        after <= max(typical.worst_chi_square, typical.chi_square + 0.5 * (before - typical.chi_square))
    )


@njit(cache=True, nogil=True, inline="always")
def fewer(pixels: Pixels, now: State, psf: Psf, typical: Typical) -> State:
    """The state without its faintest particle, if that is better."""
    n = now.theta.shape[0]
    faintest, least = -1, np.inf
    for k in range(n):
        variance = now.covariance[k, A, A]
        sure = now.theta[k, A] / np.sqrt(variance) if variance > 0 else 0.0
        doubtful = (
            sure < FAINT_SIGMAS or now.theta[k, A] < typical.brightness - UNUSUAL_SIGMAS * typical.spread
        )
        if (doubtful or not np.isfinite(now.score)) and sure < least:
            faintest, least = k, sure
    if n < 2 or faintest < 0:
        return now
    kept = np.flatnonzero(np.arange(n) != faintest)
    less = fitted(pixels, now.theta[kept], now.source[kept], psf, typical)
    allowed = (
        mimicked(less, now.theta[faintest], pixels.frame.shape, psf, typical)
        if np.isfinite(less.score)
        else 0.0
    )
    return less if less.score < now.score + allowed else now


@njit(cache=True, nogil=True, inline="always")
def _seconds(pixels: Pixels, now: State, k: int, psf: Psf) -> FloatArray:
    """Where near particle `k` a second one explains most of the residual, (up to `TRIED`, 4)."""
    rest = pixels.others.copy()
    boxes = boxes_of(now.theta, rest.shape, psf)
    for i in range(now.theta.shape[0]):
        render(now.theta[i], boxes[i], psf, False, psf.drawn)
        add(rest, now.theta[i], boxes[i], psf.drawn, 1.0)
    starts, gains = np.empty((TRIED, 4)), np.zeros(TRIED)
    place, trial, box = np.empty(4), np.empty(4), np.empty(BOX, np.int64)
    trial[Z], trial[A] = psf.z_min_um + 0.5 * GRID_UM, now.theta[k, A]
    while trial[Z] < psf.z_max_um:
        most = 0.0
        for i in range(-1, 2):
            for j in range(-1, 2):
                trial[X], trial[Y] = now.theta[k, X] + GRID_PX * j, now.theta[k, Y] + GRID_PX * i
                set_box(trial, rest.shape, psf, 0.0, box)
                if min(box[BOTTOM] - box[TOP], box[RIGHT] - box[LEFT]) < LEAST_SIDE_PX:
                    continue
                render(trial, box, psf, False, psf.drawn)
                trial[A], gain = best_brightness(pixels.frame, rest, box, psf.drawn)
                if gain > most:
                    most = gain
                    place[:] = trial
        slot = int(np.argmin(gains))
        for s in range(TRIED):
            if gains[s] > 0.0 and abs(starts[s, Z] - trial[Z]) < 2.5 * GRID_UM:
                slot = s
        if most > gains[slot]:
            gains[slot] = most
            starts[slot] = place
        trial[Z] += GRID_UM
    return starts[gains > 0.0]


@njit(cache=True, nogil=True, inline="always")
def split(pixels: Pixels, now: State, k: int, psf: Psf, typical: Typical) -> State:
    """The state in which particle `k` is two, if that is better."""
    best = now
    source = np.append(now.source, -1)
    starts = _seconds(pixels, now, k, psf)
    for s in range(starts.shape[0] + 3):
        if s < starts.shape[0]:
            trial = with_one_more(now.theta, starts[s])
        else:
            trial = with_one_more(now.theta, now.theta[k])
            axis = s - starts.shape[0]
            step = ASIDE_UM if axis == Z else ASIDE_PX
            for i, sign in ((k, -1.0), (trial.shape[0] - 1, 1.0)):
                trial[i, A] *= 0.5
                trial[i, axis] += sign * step
                trial[i, Z] = min(max(trial[i, Z], psf.z_min_um + 1.0), psf.z_max_um - 1.0)
        two = fitted(pixels, trial, source, psf, typical)
        if two.score < best.score and explains(now, two, pixels.frame.shape, psf, typical):
            best = two
    return best if best.score == now.score else _not_alone(pixels, now, best, k, psf, typical)


@njit(cache=True, nogil=True)
def _not_alone(pixels: Pixels, now: State, two: State, k: int, psf: Psf, typical: Typical) -> State:
    """The better of `two`, in which particle `k` of `now` is two, and of the brighter of these alone.

    The fit of two may have found a better place for one, which is then compared with the two from there.
    """
    start = two.theta[:-1].copy()
    if two.theta[-1, A] > two.theta[k, A]:
        start[k] = two.theta[-1]
    one = fitted(pixels, start, now.source, psf, typical)
    if one.score < now.score and not explains(one, two, pixels.frame.shape, psf, typical):
        return one
    return two


@njit(cache=True, nogil=True, inline="always")
def another_depth(pixels: Pixels, now: State, k: int, psf: Psf, typical: Typical) -> State:
    """The state with particle `k` at the depth, among those far from its own, that explains most; if better."""
    rest = pixels.others.copy()
    boxes = boxes_of(now.theta, rest.shape, psf)
    for i in range(now.theta.shape[0]):
        if i != k:
            render(now.theta[i], boxes[i], psf, False, psf.drawn)
            add(rest, now.theta[i], boxes[i], psf.drawn, 1.0)
    trial, place, box, most = now.theta[k].copy(), now.theta[k].copy(), np.empty(BOX, np.int64), 0.0
    trial[Z] = psf.z_min_um + 0.5 * DEPTH_UM
    while trial[Z] < psf.z_max_um:
        if abs(trial[Z] - now.theta[k, Z]) > OWN_DEPTH_UM:
            set_box(trial, rest.shape, psf, 0.0, box)
            render(trial, box, psf, False, psf.drawn)
            trial[A], gain = best_brightness(pixels.frame, rest, box, psf.drawn)
            if gain > most:
                most = gain
                place[:] = trial
        trial[Z] += DEPTH_UM
    if most == 0.0:
        return now
    start = now.theta.copy()
    start[k] = place
    there = fitted(pixels, start, now.source, psf, typical)
    return there if there.score < now.score else now
