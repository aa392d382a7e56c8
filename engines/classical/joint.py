"""All particles of a frame fitted together, each in the image from which the others have been subtracted.

Block coordinate descent on the sum of squares of the whole image: a particle is put back, fitted, and taken
out again, the brightest first, until everyone has been fitted `sweeps` times. Overlapping images, which are
common where images are 70 pixels long, then hardly bias one another.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from engines.classical.centre import (
    AMPLITUDE,
    CONVERGED,
    FULL_ITERATIONS,
    LN_SX,
    LN_SY,
    X,
    Y,
    add_particle,
    fit_gaussian,
)

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# States of a particle beside those of `fit_gaussian`.
UNTRIED, OFF_IMAGE, MERGED = 10, 11, 12
# A particle within this many widths of a stronger one of about its own shape is the same particle.
MERGE_SIGMAS = 1.0
MERGE_LN_WIDTH = 0.5


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
    """Fit every particle `sweeps` times; `residual`, bright on dark, is left without those that were fitted.

    `start` (N, 6), `parameters` (N, 6), `covariance` (N, 6, 6), `state` (N,): CONVERGED particles go on from
    where they are and have been subtracted from `residual`; the others begin at `start`.
    """
    height, width = residual.shape
    work = np.empty(start.shape[1])
    errors = np.empty((start.shape[1], start.shape[1]))
    for _ in range(sweeps):
        for index in range(start.shape[0]):
            if state[index] in (MERGED, OFF_IMAGE):
                continue
            if state[index] == CONVERGED:
                add_particle(residual, parameters[index], 1.0)
                work[:] = parameters[index]
            else:
                work[:] = start[index]
            result = fit_gaussian(residual, work, noise, circular, FULL_ITERATIONS, errors)
            if result == CONVERGED and not (
                -0.5 <= work[X] <= width - 0.5 and -0.5 <= work[Y] <= height - 0.5
            ):
                result = OFF_IMAGE
            if result == CONVERGED:
                parameters[index] = work
                covariance[index] = errors
                add_particle(residual, work, -1.0)
            state[index] = result
        _merge_doubles(residual, parameters, state)


@njit(cache=True, nogil=True)
def _merge_doubles(residual: Float32Array, parameters: FloatArray, state: IntArray) -> None:
    """Put back the fainter one of two particles that share one image; the next sweep fits the other alone."""
    for a in range(state.size):
        for b in range(state.size):
            if a == b or state[a] != CONVERGED or state[b] != CONVERGED:
                continue
            p = parameters[a]
            q = parameters[b]
            if q[AMPLITUDE] > p[AMPLITUDE]:
                continue
            dx = (p[X] - q[X]) / math.exp(p[LN_SX])
            dy = (p[Y] - q[Y]) / math.exp(p[LN_SY])
            if (
                dx * dx + dy * dy < MERGE_SIGMAS * MERGE_SIGMAS
                and abs(p[LN_SX] - q[LN_SX]) < MERGE_LN_WIDTH
                and abs(p[LN_SY] - q[LN_SY]) < MERGE_LN_WIDTH
            ):
                add_particle(residual, q, 1.0)
                state[b] = MERGED


@njit(cache=True, nogil=True)
def is_explained(
    candidates: FloatArray,
    significance: FloatArray,
    parameters: FloatArray,
    state: IntArray,
    fraction: float,
) -> npt.NDArray[np.bool_]:
    """Say which candidates (4, M) of the residual image are no more than the misfit of a particle there.

    They are when their significance is below `fraction` of that with which the particle was found, falling
    off with the particle's image at two widths.
    """
    explained = np.zeros(candidates.shape[1], np.bool_)
    for candidate in range(candidates.shape[1]):
        limit = 0.0
        for index in range(state.size):
            if state[index] != CONVERGED:
                continue
            p = parameters[index]
            dx = (candidates[0, candidate] - p[X]) / math.exp(p[LN_SX])
            dy = (candidates[1, candidate] - p[Y]) / math.exp(p[LN_SY])
            limit += fraction * significance[index] * math.exp(-0.125 * (dx * dx + dy * dy))
        explained[candidate] = candidates[3, candidate] < limit
    return explained
