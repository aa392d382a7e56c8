"""Other numbers and depths of overlapping particles, each fitted to the same pixels and given a score."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from engines.refine.block import CONVERGED, fit_block
from engines.refine.rendering import BOTTOM, LEFT, RIGHT, TOP, A, X, Y, Z, add, best_brightness, draw, set_box

# What a particle more must lower chi-square by: four numbers more, at one of very many places.
COST = 32.0
# The most that an unusual brightness adds to chi-square; such particles exist.
MOST_SURPRISE = 44.0
FAINT_SIGMAS = 5.0
UNUSUAL_SIGMAS = 3.0
ITERATIONS = 16
SPARE_UM = 12.0
LARGEST_MOVE_PX = 4.0
LEAST_SIDE_PX = 3
# Where a second particle is looked for: half its distance from the first, if alike, or on a grid.
ASIDE_PX, ASIDE_UM = 1.5, 12.0
GRID_PX, GRID_UM = 3.0, 15.0
TRIED = 2
# Other depths that are tried: in such steps, and so far from its own.
DEPTH_UM, OWN_DEPTH_UM = 10.0, 15.0


class Pixels(NamedTuple):
    """Contrast (H, W), the image of the particles that stay as they are (H, W), and the weights (H, W)."""

    frame: Any
    others: Any
    weight: Any


class Image(NamedTuple):
    """The particle image: spline, (first node, step, least, greatest) depth, extents, and work space."""

    coefficients: Any
    z: Any
    extent: Any
    space: Any
    drawn: Any


class Rules(NamedTuple):
    """The frame's usual and worst reduced chi-square, its brightness and scatter, the most in a cluster."""

    usual: float
    worst: float
    brightness: float
    spread: float
    most: int


class State(NamedTuple):
    """Particles (n, 4), their covariances (n, 4, 4) and fits (n, 2), what each was (n,), and the score."""

    theta: Any
    covariance: Any
    fit: Any
    source: Any
    score: float


@njit(cache=True, nogil=True)
def _score(chi: float, theta: Any, covariance: Any, prior: Any, rules: Any) -> float:
    """Chi-square, without what `prior` added to it, plus the cost of the particles and of their brightness."""
    extra = 0.0
    for k in range(theta.shape[0]):
        off = (theta[k, A] - rules.brightness) ** 2
        chi -= prior[1] * off
        extra += min(off / (rules.spread**2 + max(covariance[k, A, A], 0.0)), MOST_SURPRISE) + COST
    return float(chi / rules.usual + extra)


@njit(cache=True, nogil=True)
def boxes_of(theta: Any, shape: Any, image: Any) -> Any:
    """The rectangles (n, 4) that particles (n, 4) may cover."""
    boxes = np.empty((theta.shape[0], 4), np.int64)
    for k in range(theta.shape[0]):
        set_box(theta[k], shape, image.coefficients, image.z, image.extent, SPARE_UM, boxes[k])
    return boxes


@njit(cache=True, nogil=True)
def fitted(pixels: Any, start: Any, source: Any, image: Any, rules: Any) -> Any:
    """The `State` that a fit from `start` (n, 4) ends in; its score is infinite where it makes no sense."""
    theta = start.copy()
    n = theta.shape[0]
    covariance, fit = np.zeros((n, 4, 4)), np.zeros((n, 2))
    boxes = boxes_of(theta, pixels.frame.shape, image)
    for k in range(n):
        tall, wide = boxes[k, BOTTOM] - boxes[k, TOP], boxes[k, RIGHT] - boxes[k, LEFT]
        if tall < LEAST_SIDE_PX or wide < LEAST_SIDE_PX:
            return State(theta, covariance, fit, source, np.inf)
    prior = np.array([rules.brightness, 0.0 if n == 1 else 1.0 / rules.spread**2])
    ended, chi = fit_block(
        pixels.frame,
        pixels.others,
        theta,
        boxes,
        np.zeros(2, np.int64),
        pixels.weight,
        prior,
        image.coefficients,
        image.z,
        image.space,
        np.int64(ITERATIONS),
        covariance,
        fit,
    )
    value = _score(chi, theta, covariance, prior, rules)
    for k in range(n):
        moved = max(abs(theta[k, X] - start[k, X]), abs(theta[k, Y] - start[k, Y]))
        if ended != CONVERGED or moved > LARGEST_MOVE_PX or theta[k, A] <= 0.0:
            value = np.inf
    return State(theta, covariance, fit, source, value)


@njit(cache=True, nogil=True)
def with_one_more(theta: Any, more: Any) -> Any:
    """Particles (n + 1, 4): those (n, 4), and another (4,)."""
    out = np.empty((theta.shape[0] + 1, 4))
    out[:-1] = theta
    out[-1] = more
    return out


@njit(cache=True, nogil=True)
def explains(now: Any, more: Any, rules: Any) -> bool:
    """Whether `more` has a better score and, where the images are unlike the model's, takes away half of that.

    Particles of another kind are unlike the model however many of these are put there.
    """
    if not more.score < now.score:
        return False
    before, after = now.fit[:, 0].max(), more.fit[:, 0].max()
    return bool(after <= max(rules.worst, rules.usual + 0.5 * (before - rules.usual)))


@njit(cache=True, nogil=True)
def fewer(pixels: Any, now: Any, image: Any, rules: Any) -> Any:
    """The state without its faintest particle, if that is better."""
    n = now.theta.shape[0]
    faintest, least = -1, np.inf
    for k in range(n):
        variance = now.covariance[k, A, A]
        sure = now.theta[k, A] / np.sqrt(variance) if variance > 0 else 0.0
        doubtful = sure < FAINT_SIGMAS or now.theta[k, A] < rules.brightness - UNUSUAL_SIGMAS * rules.spread
        if (doubtful or not np.isfinite(now.score)) and sure < least:
            faintest, least = k, sure
    if n < 2 or faintest < 0:
        return now
    kept = np.flatnonzero(np.arange(n) != faintest)
    less = fitted(pixels, now.theta[kept], now.source[kept], image, rules)
    return less if less.score < now.score else now


@njit(cache=True, nogil=True)
def _seconds(pixels: Any, now: Any, k: int, image: Any) -> Any:
    """Where near particle `k` a second one explains most of what is left, (up to `TRIED`, 4)."""
    rest = pixels.others.copy()
    boxes = boxes_of(now.theta, rest.shape, image)
    for i in range(now.theta.shape[0]):
        draw(now.theta[i], boxes[i], image.coefficients, image.z, False, image.space, image.drawn)
        add(rest, now.theta[i], boxes[i], image.drawn, 1.0)
    starts, gains = np.empty((TRIED, 4)), np.zeros(TRIED)
    place, trial, box = np.empty(4), np.empty(4), np.empty(4, np.int64)
    trial[Z] = image.z[2] + 0.5 * GRID_UM
    while trial[Z] < image.z[3]:
        most = 0.0
        for i in range(-1, 2):
            for j in range(-1, 2):
                trial[X], trial[Y] = now.theta[k, X] + GRID_PX * j, now.theta[k, Y] + GRID_PX * i
                set_box(trial, rest.shape, image.coefficients, image.z, image.extent, 0.0, box)
                if min(box[BOTTOM] - box[TOP], box[RIGHT] - box[LEFT]) < LEAST_SIDE_PX:
                    continue
                draw(trial, box, image.coefficients, image.z, False, image.space, image.drawn)
                trial[A], gain = best_brightness(pixels.frame, rest, box, image.drawn)
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


@njit(cache=True, nogil=True)
def split(pixels: Any, now: Any, k: int, image: Any, rules: Any) -> Any:
    """The state in which particle `k` is two, if that is better."""
    best = now
    source = np.append(now.source, -1)
    starts = _seconds(pixels, now, k, image)
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
                trial[i, Z] = min(max(trial[i, Z], image.z[2] + 1.0), image.z[3] - 1.0)
        two = fitted(pixels, trial, source, image, rules)
        if two.score < best.score and explains(now, two, rules):
            best = two
    return best


@njit(cache=True, nogil=True)
def another_depth(pixels: Any, now: Any, k: int, image: Any, rules: Any) -> Any:
    """The state with particle `k` at the depth, among those far from its own, that explains most; if better."""
    rest = pixels.others.copy()
    boxes = boxes_of(now.theta, rest.shape, image)
    for i in range(now.theta.shape[0]):
        if i != k:
            draw(now.theta[i], boxes[i], image.coefficients, image.z, False, image.space, image.drawn)
            add(rest, now.theta[i], boxes[i], image.drawn, 1.0)
    trial, place, box, most = now.theta[k].copy(), now.theta[k].copy(), np.empty(4, np.int64), 0.0
    trial[Z] = image.z[2] + 0.5 * DEPTH_UM
    while trial[Z] < image.z[3]:
        if abs(trial[Z] - now.theta[k, Z]) > OWN_DEPTH_UM:
            set_box(trial, rest.shape, image.coefficients, image.z, image.extent, 0.0, box)
            draw(trial, box, image.coefficients, image.z, False, image.space, image.drawn)
            trial[A], gain = best_brightness(pixels.frame, rest, box, image.drawn)
            if gain > most:
                most = gain
                place[:] = trial
        trial[Z] += DEPTH_UM
    if most == 0.0:
        return now
    start = now.theta.copy()
    start[k] = place
    there = fitted(pixels, start, now.source, image, rules)
    return there if there.score < now.score else now
