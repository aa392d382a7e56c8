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
from engines.classical.gaussian import AMPLITUDE, LN_SX, LN_SY, WINDOW_SIGMAS, X, Y

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


@njit(cache=True, nogil=True)
def pixel_noise(image: Float32Array, stride: int) -> float:
    """Return the standard deviation of independent pixel noise, from 2 x 2 differences clipped at 3 sigma."""
    height, width = image.shape
    values = np.empty((height // 2) * (width // 2) // stride + 1)
    count = 0
    number = 0
    for row in range(0, height - 1, 2):
        for column in range(0, width - 1, 2):
            number += 1
            if number % stride == 0 and count < values.size:
                values[count] = 0.5 * (
                    image[row, column]
                    - image[row, column + 1]
                    - image[row + 1, column]
                    + image[row + 1, column + 1]
                )
                count += 1
    limit = np.inf
    sigma = 0.0
    for _ in range(6):
        total = 0.0
        kept = 0
        for value in values[:count]:
            if abs(value) < limit:
                total += value * value
                kept += 1
        # 0.9866 is what clipping at 3 sigma leaves of a normal distribution's standard deviation.
        sigma = math.sqrt(total / max(1, kept)) / (1.0 if limit == np.inf else 0.9866)
        if sigma == 0:
            break
        limit = 3 * sigma
    return sigma


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
) -> None:
    """Fit every particle in up to `sweeps` sweeps, and take those that could be fitted out of `residual`.

    `residual` (H, W) is bright on dark. `start` (N, 6), `parameters` (N, 6), `covariance` (N, 6, 6),
    `state` (N,): CONVERGED particles go on from where they are and have been subtracted from `residual`
    before; the others begin at `start`. A refit that fails keeps the fit before.
    """
    height, width = residual.shape
    work = np.empty(start.shape[1])
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
            if state[index] == UNTRIED and _is_misfit(residual, start[index], parameters, state):
                state[index] = EXPLAINED
                continue
            if state[index] != UNTRIED and not _neighbour_changed(
                index, start, parameters, state, changed, sweep - 1
            ):
                continue
            was_fitted = state[index] == CONVERGED
            if was_fitted:
                add_particle(residual, parameters[index], 1.0)
                work[:] = parameters[index]
            else:
                work[:] = start[index]
            result = fit_gaussian(residual, work, noise, circular, FULL_ITERATIONS, errors)
            if result == CONVERGED and not (
                -0.5 <= work[X] <= width - 0.5 and -0.5 <= work[Y] <= height - 0.5
            ):
                result = OFF_IMAGE
            if result == NOT_CONVERGED and was_fitted:
                add_particle(residual, parameters[index], -1.0)
                continue
            if result == CONVERGED:
                if not was_fitted or _differs(work, parameters[index]):
                    changed[index] = sweep
                parameters[index] = work
                covariance[index] = errors
                add_particle(residual, work, -1.0)
            elif was_fitted:
                changed[index] = sweep
            state[index] = result
        _merge_doubles(residual, parameters, state, changed, sweep)


@njit(cache=True, nogil=True)
def _is_misfit(
    residual: Float32Array, candidate: FloatArray, parameters: FloatArray, state: IntArray
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
            strength = p[AMPLITUDE] * math.exp(0.5 * (p[LN_SX] + p[LN_SY]))
            limit += MISFIT_FRACTION * strength * math.exp(-0.5 * squared / MISFIT_REACH_SIGMAS**2)
    if limit == 0:
        return False
    left = amplitude_at(residual, candidate) * math.exp(0.5 * (candidate[LN_SX] + candidate[LN_SY]))
    return bool(left < limit)


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
def _merge_doubles(
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
