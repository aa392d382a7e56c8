"""All particles of a frame fitted together, each in the image from which the others have been subtracted.

Block coordinate descent on the sum of squares of the whole image: a particle is put back, fitted, and taken
out again, the most significant first, in several sweeps. Overlapping images, which are common where images
are 70 pixels long, then hardly bias one another. A particle none of whose neighbours changed is left alone.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from engines.classical.centre import (
    CONVERGED,
    FULL_ITERATIONS,
    NOT_CONVERGED,
    add_particle,
    amplitude_at,
    fit_gaussian,
)
from engines.classical.gaussian import AMPLITUDE, LN_SX, LN_SY, OFFSET, WINDOW_SIGMAS, X, Y

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# States of a particle beside those of `fit_gaussian`.
UNTRIED, OFF_IMAGE, MERGED, EXPLAINED = 10, 11, 12, 13
# A particle within this many widths of a stronger one of about its own shape is the same particle.
MERGE_SIGMAS = 1.0
MERGE_LN_WIDTH = 0.5
# Part of a width, or of the amplitude, by which an image changes without mattering to its neighbours.
SMALL_CHANGE = 0.02
# A candidate on a particle is a misfit of that unless it has this part of its strength, which falls off at
# two widths and is nothing beyond six.
MISFIT_FRACTION = 0.3
MISFIT_REACH_SIGMAS = 2.0
MISFIT_END_SIGMAS = 6.0
# Beyond so many widths, and anywhere around an object wider than a particle, a misfit of what is strong has to
# show, or it would explain away too much: the image is above the background by this part of the object's
# amplitude (its footprint), or the same is left all around.
MISFIT_NEAR_SIGMAS = 4.0
FOOTPRINT_PART = 0.15
RING_PLACES = 8
RING_PART = 0.5


@njit(cache=True, nogil=True)
def fit_all(
    residual: Float32Array,
    start: FloatArray,
    parameters: FloatArray,
    covariance: FloatArray,
    state: IntArray,
    noise: float,
    circular: bool,
    sweeps: int,
    wide: float,
    strong: float,
) -> None:
    """Fit every particle in up to `sweeps` sweeps, and take those that could be fitted out of `residual`.

    `residual` (H, W) is bright on dark. `start` (N, 6), `parameters` (N, 6), `covariance` (N, 6, 6),
    `state` (N,): CONVERGED particles go on from where they are and have been subtracted from `residual`
    before; the others begin at `start`. A refit that fails keeps the fit before; one that
    leaves the image keeps where it went. Objects of a mean width of
    more than `wide` pixels are no particles. Where an amplitude is above `strong`, its misfit has to show.
    """
    height, width = residual.shape
    work = np.empty(start.shape[1])
    before = np.empty(start.shape[1])
    errors = np.empty((start.shape[1], start.shape[1]))
    # The sweep in which a particle last changed its image by more than a little.
    changed = np.full(start.shape[0], -2)
    for index in range(start.shape[0]):
        if state[index] == UNTRIED:
            changed[index] = -1
    for sweep in range(sweeps):
        for index in range(start.shape[0]):
            if state[index] in (MERGED, EXPLAINED, OFF_IMAGE):
                continue
            if state[index] == UNTRIED and _is_misfit(
                residual, start[index], parameters, state, wide, strong
            ):
                state[index] = EXPLAINED
                continue
            if state[index] != UNTRIED and not _neighbour_changed(
                index, start, parameters, state, changed, sweep - 1
            ):
                continue
            was_fitted = state[index] == CONVERGED
            if was_fitted:
                before[:] = parameters[index]
                add_particle(residual, before, 1.0)
                work[:] = before
            else:
                work[:] = start[index]
            result = fit_gaussian(residual, work, noise, circular, FULL_ITERATIONS, errors)
            if result == CONVERGED and not (
                -0.5 <= work[X] <= width - 0.5 and -0.5 <= work[Y] <= height - 0.5
            ):
                result = OFF_IMAGE
                parameters[index] = work
            if result == NOT_CONVERGED and was_fitted:
                add_particle(residual, before, -1.0)
                continue
            if result == CONVERGED:
                if not was_fitted or _differs(work, before):
                    changed[index] = sweep
                parameters[index] = work
                covariance[index] = errors
                add_particle(residual, work, -1.0)
            elif was_fitted:
                changed[index] = sweep
            state[index] = result
        _merge_second_detections(residual, parameters, state, changed, sweep)


@njit(cache=True, nogil=True)
def _is_misfit(
    residual: Float32Array,
    candidate: FloatArray,
    parameters: FloatArray,
    state: IntArray,
    wide: float,
    strong: float,
) -> bool:
    """Say whether a candidate is what an imperfect model has left of the particles fitted around it.

    Strength is amplitude times the root of the area: proportional to the significance in white noise.
    """
    limit = 0.0
    for index in range(state.size):
        p = parameters[index]
        if (
            state[index] != CONVERGED
            or abs(candidate[X] - p[X]) > residual.shape[1] / 4
            or abs(candidate[Y] - p[Y]) > residual.shape[0] / 4
        ):
            continue
        dx = (candidate[X] - p[X]) / math.exp(p[LN_SX])
        dy = (candidate[Y] - p[Y]) / math.exp(p[LN_SY])
        squared = dx * dx + dy * dy
        if squared < MISFIT_END_SIGMAS * MISFIT_END_SIGMAS:
            if (
                p[AMPLITUDE] > strong
                and (squared > MISFIT_NEAR_SIGMAS**2 or mean_width(p) > wide)
                and not _shows_misfit(residual, candidate, p, squared)
            ):
                continue
            strength = p[AMPLITUDE] * mean_width(p)
            limit += MISFIT_FRACTION * strength * math.exp(-0.5 * squared / MISFIT_REACH_SIGMAS**2)
    if limit == 0:
        return False
    left = amplitude_at(residual, candidate)[0] * mean_width(candidate)
    return bool(left < limit)


@njit(cache=True, nogil=True)
def mean_width(p: FloatArray) -> float:
    """Return the geometric mean of the widths along x and y, px."""
    return math.exp(0.5 * (p[LN_SX] + p[LN_SY]))


@njit(cache=True, nogil=True)
def _shows_misfit(residual: Float32Array, candidate: FloatArray, p: FloatArray, squared: float) -> bool:
    """Say whether a candidate lies on the object `p`, whose image this is, or is part of a ring around it.

    `squared` is the distance in widths of `p`, squared.
    """
    own, background = amplitude_at(residual, candidate)
    if background - p[OFFSET] + p[AMPLITUDE] * math.exp(-0.5 * squared) > FOOTPRINT_PART * p[AMPLITUDE]:
        return True
    dx = candidate[X] - p[X]
    dy = (candidate[Y] - p[Y]) * math.exp(p[LN_SX] - p[LN_SY])
    elsewhere = candidate.copy()
    seen = 0
    alike = 0
    for place in range(1, RING_PLACES):
        angle = 2 * math.pi * place / RING_PLACES
        elsewhere[X] = p[X] + dx * math.cos(angle) - dy * math.sin(angle)
        turned = dx * math.sin(angle) + dy * math.cos(angle)
        elsewhere[Y] = p[Y] + turned * math.exp(p[LN_SY] - p[LN_SX])
        if 0 <= elsewhere[X] < residual.shape[1] and 0 <= elsewhere[Y] < residual.shape[0]:
            seen += 1
            alike += amplitude_at(residual, elsewhere)[0] > RING_PART * own
    return bool(2 * alike > seen)


@njit(cache=True, nogil=True)
def _differs(p: FloatArray, q: FloatArray) -> bool:
    return bool(
        abs(p[X] - q[X]) > SMALL_CHANGE * math.exp(p[LN_SX])
        or abs(p[Y] - q[Y]) > SMALL_CHANGE * math.exp(p[LN_SY])
        or abs(p[LN_SX] - q[LN_SX]) > SMALL_CHANGE
        or abs(p[LN_SY] - q[LN_SY]) > SMALL_CHANGE
        or abs(p[AMPLITUDE] - q[AMPLITUDE]) > SMALL_CHANGE * p[AMPLITUDE]
    )


@njit(cache=True, nogil=True)
def _neighbour_changed(
    index: int, start: FloatArray, parameters: FloatArray, state: IntArray, changed: IntArray, since: int
) -> bool:
    """Say whether another particle within the fit window of this one changed in sweep `since` or later."""
    own = parameters[index] if state[index] == CONVERGED else start[index]
    own_x = math.exp(own[LN_SX])
    own_y = math.exp(own[LN_SY])
    for other in range(state.size):
        if other == index or changed[other] < since:
            continue
        p = parameters[other] if state[other] in (CONVERGED, MERGED) else start[other]
        apart_x = abs(own[X] - p[X]) / WINDOW_SIGMAS - own_x
        apart_y = abs(own[Y] - p[Y]) / WINDOW_SIGMAS - own_y
        if (apart_x <= 0 or math.log(apart_x) < p[LN_SX]) and (apart_y <= 0 or math.log(apart_y) < p[LN_SY]):
            return True
    return False


@njit(cache=True, nogil=True)
def _merge_second_detections(
    residual: Float32Array, parameters: FloatArray, state: IntArray, changed: IntArray, sweep: int
) -> None:
    """Put back the fainter one of two particles that share one image; the next sweep fits the other alone."""
    for a in range(state.size):
        if state[a] != CONVERGED:
            continue
        p = parameters[a]
        reach_x = MERGE_SIGMAS * math.exp(p[LN_SX])
        reach_y = MERGE_SIGMAS * math.exp(p[LN_SY])
        for b in range(state.size):
            q = parameters[b]
            dx = (p[X] - q[X]) / reach_x
            dy = (p[Y] - q[Y]) / reach_y
            if (
                dx * dx + dy * dy < 1
                and a != b
                and state[b] == CONVERGED
                and q[AMPLITUDE] <= p[AMPLITUDE]
                and abs(p[LN_SX] - q[LN_SX]) < MERGE_LN_WIDTH
                and abs(p[LN_SY] - q[LN_SY]) < MERGE_LN_WIDTH
            ):
                add_particle(residual, q, 1.0)
                state[b] = MERGED
                changed[b] = sweep
