"""How the noise of a pipeline's images grows with their light, from what the image model leaves of them.

The variance of a pixel grows linearly with its light (photon transfer; Janesick 2007, Photon Transfer, ch. 5), by
read noise and shot noise. Where an image is unlike the model there is a part beside that grows with the square of
the contrast; it is fitted as well, and left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibration.deeptrack.image_regression import FloatArray, ImageSpline

ROUNDS = 4
SIGMAS = 3.0
"""Standard errors from which images count as unlike the model."""
MOST_SQUARE = 25.0
"""Variances from which the square of a deviation is no noise but something unlike the model."""
LEAST_VARIANCE = 0.05
"""Of the background's: no pixel counts more than for this."""
LEAST_LIGHT = 0.05
"""Of the background, from which a pixel counts."""
DARKEST, WITHOUT_NOISE = 0.01, 0.9
"""Quantile of the light that counts as the darkest, and the part of it that may be a camera's offset, without
noise: less light than was seen is not extrapolated to."""
LEAST_NOISE = 0.3
"""Variance of the background, over that measured between neighbours, without which an image has no noise."""


@dataclass(frozen=True, slots=True)
class Noise:
    """`read`, `shot` and `growth` of `FitModel`."""

    read: float
    shot: float
    growth: float | None = None


def noise_in(spline: ImageSpline, sign: float, lit: bool) -> Noise:
    """The noise in the cut-outs of a spline whose amplitudes are known; `sign` is that of the objects' contrast.

    Where images are `lit`, the background's light is known, and the ratio of read to shot noise at that light is
    the result; else the growth over the background's noise.
    """
    contrast = sign * (spline.cutouts.images - spline.residual())
    used = spline.weight > 0
    if lit:
        used &= contrast > LEAST_LIGHT - 1  # what has no light, or less, is clipped, and has no noise
    contrast, square = contrast[used], (spline.weight * spline.residual() ** 2)[used]
    factors = np.array([1.0, 0.0, 0.0])
    for turn in range(ROUNDS):
        expected = _variance(contrast, factors)
        kept = square < (MOST_SQUARE * expected if turn else np.inf)
        factors = _fitted(contrast[kept], square[kept], expected[kept])
    background, slope = float(factors[0]), float(factors[1])
    if not background > LEAST_NOISE or not slope > 0:
        return Noise(1.0, 0.0)
    if lit:
        shot = slope / background
        darkest = 1 + float(np.quantile(contrast, DARKEST))
        return Noise(max(1 - shot, -WITHOUT_NOISE * darkest * shot), shot)
    return Noise(1.0, 0.0, slope / background**0.5)


def _variance(contrast: FloatArray, factors: FloatArray) -> FloatArray:
    found = factors[0] + factors[1] * contrast + factors[2] * contrast**2
    return np.asarray(np.maximum(found, LEAST_VARIANCE * max(float(factors[0]), LEAST_VARIANCE)), np.float64)


def _fitted(contrast: FloatArray, square: FloatArray, expected: FloatArray) -> FloatArray:
    """Factors (3,) of 1, the contrast and its square, the last 0 where it may be chance, in the squares (N,) of
    deviations whose scatter is that of normal noise of the `expected` variance."""
    terms = np.stack([np.ones_like(contrast), contrast, contrast**2], axis=-1) / expected[:, None]
    matrix, right = terms.T @ terms, terms.T @ (square / expected)
    found = np.linalg.lstsq(matrix, right, rcond=None)[0]
    # the square of a normal deviation has a variance of 2
    chance = SIGMAS * np.sqrt(2.0 * max(float(np.linalg.pinv(matrix)[2, 2]), 0.0))
    if found[2] > chance:
        return np.asarray(found, np.float64)
    return np.append(np.linalg.lstsq(matrix[:2, :2], right[:2], rcond=None)[0], 0.0)
