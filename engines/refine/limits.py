"""The least and the greatest value that an image can have, found from pixels that would be beyond them.

A camera's wells fill, its converter ends, light that is taken away ends at none: the expected image is
min(max(mu, low), high) with mu of (1) in `joint_fit`. Pixels whose mu is beyond a limit tell nothing of a particle
but that; given mu, the limit with the greatest likelihood is the weighted mean of such pixels. Which pixels these
are follows from mu, not from their noise, so what is measured with the others has no bias from the choice.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.arguments import BoolArray, Float32Array, FloatArray, IntArray, Psf
from engines.refine.normal_equations import GROUND, solve
from engines.refine.rendering import LEFT, TOP, A, render
from engines.refine.spline import pitch_of

LOW, HIGH = range(2)
LIMIT_COST = 16.0
"""Chi-square that a limit has to take away: 4 standard errors. Lower finds limits where there is none, higher
leaves more pixels in that are a little beyond one, which move a particle by up to a standard error."""
LEVELS = 256
"""Values over the range of mu that are tried for where a limit sets in."""
BEYOND_SIGMAS = 4.5
"""Standard deviations of a pixel by which some pixels of a frame may be beyond a limit: noise, one in 300,000."""
STRAYS = 3
"""Pixels of a frame, hot or dead ones, that may be beyond a limit by more."""


def ends_of(contrast: Float32Array) -> FloatArray:
    """The least and the greatest value (2,) of an image, but for `STRAYS` pixels at each end."""
    values = contrast.ravel()
    kept = min(STRAYS, (values.size - 1) // 2)
    return np.array(
        [np.partition(values, kept)[kept], np.partition(values, -1 - kept)[-1 - kept]], np.float64
    )


@njit(cache=True, nogil=True)
def expect(
    frame: Float32Array,
    total: Float32Array,
    theta: FloatArray,
    box: IntArray,
    weight: Float32Array,
    psf: Psf,
    used: BoolArray,
    mean: FloatArray,
) -> bool:
    """Fill `mean` (H', W') with mu in the rectangle `box`; False where the pixels `used` (H', W') know no plane.

    `total` (H, W) is the image of all but the particle `theta` (4,); the plane is the one that fits best beside it.
    """
    tall, wide = weight.shape
    render(theta, box, psf, False, psf.drawn)
    pitch = pitch_of(wide)
    scale = 2.0 / max(tall, wide)
    matrix, right = np.zeros((GROUND, GROUND)), np.zeros(GROUND)
    term, ground, lower = np.ones(GROUND), np.zeros(GROUND), np.zeros((GROUND, GROUND))
    for i in range(tall):
        term[2] = scale * (i - 0.5 * (tall - 1))
        for j in range(wide):
            row, column = box[TOP] + i, box[LEFT] + j
            mean[i, j] = total[row, column] + theta[A] * psf.drawn[0, i * pitch + j]
            if not used[i, j]:
                continue
            off = frame[row, column] - mean[i, j]
            term[1] = scale * (j - 0.5 * (wide - 1))
            for a in range(GROUND):
                right[a] += weight[i, j] * term[a] * off
                for b in range(GROUND):
                    matrix[a, b] += weight[i, j] * term[a] * term[b]
    if not solve(matrix, right, 0.0, ground, lower):
        return False
    for i in range(tall):
        for j in range(wide):
            mean[i, j] += ground[0] + ground[1] * scale * (j - 0.5 * (wide - 1))
            mean[i, j] += ground[2] * scale * (i - 0.5 * (tall - 1))
    return True


@njit(cache=True, nogil=True)
def find_limits(
    frame: Float32Array,
    mean: FloatArray,
    box: IntArray,
    weight: Float32Array,
    ends: FloatArray,
    limits: FloatArray,
) -> int:
    """Fill `limits` (2,), infinite where there is none; returns how many there are.

    `mean` (H', W') is mu in the rectangle `box` of the `frame` (H, W), `ends` (2,) that of `ends_of`.
    """
    count = 0
    for side in range(2):
        sign = -1.0 if side == LOW else 1.0
        limits[side] = sign * np.inf
        level, gain, variance = _limit(frame, mean, box, weight, sign)
        within = sign * ends[side] <= level + BEYOND_SIGMAS * np.sqrt(variance)
        if gain > LIMIT_COST and within:
            limits[side] = sign * level
            count += 1
    return count


@njit(cache=True, nogil=True)
def _limit(
    frame: Float32Array, mean: FloatArray, box: IntArray, weight: Float32Array, sign: float
) -> tuple[float, float, float]:
    """The upper limit (of `sign` times the image), the chi-square it takes away, and a pixel's variance there."""
    tall, wide = weight.shape
    low, high = np.inf, -np.inf
    for i in range(tall):
        for j in range(wide):
            low, high = min(low, sign * mean[i, j]), max(high, sign * mean[i, j])
    if not high > low:
        return np.inf, 0.0, 0.0
    step = (high - low) / LEVELS
    sums, count = np.zeros((4, LEVELS)), np.zeros(LEVELS)
    for i in range(tall):
        for j in range(wide):
            w, mu = weight[i, j], sign * mean[i, j]
            seen = sign * frame[box[TOP] + i, box[LEFT] + j]
            at = min(int((mu - low) / step), LEVELS - 1)
            count[at] += 1.0
            sums[0, at] += w
            sums[1, at] += w * seen
            sums[2, at] += w * seen * seen
            sums[3, at] += w * (seen - mu) ** 2
    best, level, variance = 0.0, np.inf, 0.0
    number, w0, w1, w2, chi = 0.0, 0.0, 0.0, 0.0, 0.0
    for at in range(LEVELS - 1, 0, -1):
        number += count[at]
        w0, w1, w2, chi = w0 + sums[0, at], w1 + sums[1, at], w2 + sums[2, at], chi + sums[3, at]
        if not w0 > 0.0:
            continue
        here = w1 / w0
        gain = chi - (w2 - w1 * here)
        if gain > best and here <= low + (at + 1) * step:
            best, level, variance = gain, here, number / w0
    return level, best, variance


@njit(cache=True, nogil=True)
def within_limits(mean: FloatArray, limits: FloatArray, used: BoolArray) -> bool:
    """Fill `used` (H', W') with where mu is between the limits; whether that is where it was before."""
    same = True
    for i in range(used.shape[0]):
        for j in range(used.shape[1]):
            inside = limits[LOW] < mean[i, j] < limits[HIGH]
            same = same and inside == used[i, j]
            used[i, j] = inside
    return same


@njit(cache=True, nogil=True)
def chi_square_within(
    frame: Float32Array, mean: FloatArray, box: IntArray, weight: Float32Array, limits: FloatArray
) -> float:
    """Chi-square of all pixels of a rectangle, mu cut off at the limits."""
    total = 0.0
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            mu = min(max(mean[i, j], limits[LOW]), limits[HIGH])
            total += weight[i, j] * (frame[box[TOP] + i, box[LEFT] + j] - mu) ** 2
    return float(total)
