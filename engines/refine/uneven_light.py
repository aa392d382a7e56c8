"""Light that is uneven over an image, as the fit takes it: the noise of a pixel grows with the light there.

The local plane of a fit's background takes any gradient, but the weights of its pixels, (2) in `joint_fit`, go by
the light that is known before: that of the particles, and what is found here. A polynomial is fitted to a sample
of the pixels; those of particles have little weight (Tukey's biweight; Huber & Ronchetti 2009, Robust Statistics,
ch. 4).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.arguments import Float32Array, FloatArray

SAMPLES = 4000
"""Pixels that are looked at: a plane is then known to 3 % of the noise of a pixel."""
ROUNDS = 4
BIWEIGHT = 4.685
"""Scatter at which a pixel counts no more: 95 % efficient for normal noise."""
SCATTER_OF_MAD = 1.4826
LEAST_RANGE = 0.1
"""Of the light, over the image: weights that are 10 % off cost 0.3 % of a standard error, so less is left alone."""
LEAST_MULTIPLIED_RANGE = 0.02
"""The same where light multiplies particles. From there on it moves particles of a signal-to-noise ratio of 1,000 a
pixel by a part of their standard error."""
LEAST_LIGHT = 0.05
"""Of the median's: a polynomial may fall below it in a dark corner, no light does."""
MODEL_SIZES = 6
"""Sides of a particle's image in that of a frame from which on the polynomial may bend: in a smaller one it would
take a part of the particle for light. A plane takes nothing that the fit's own plane does not take."""


def lay_light(
    contrast: Float32Array, size_px: int, out: Float32Array, least_range: float = LEAST_RANGE
) -> bool:
    """Fill `out` (H, W) with the uneven part of the light in a `contrast` (H, W), 0 where it is even; whether it
    is.

    `size_px` is the side of the PSF model. True where there is something to lay: it differs by more than
    `least_range` over the image.
    """
    height, width = contrast.shape
    if min(height, width) < 2:
        out.fill(0)
        return False
    step = max(1, int(np.sqrt(contrast.size / SAMPLES)))
    sample = contrast[step // 2 :: step, step // 2 :: step].astype(np.float64)
    scale = 2.0 / max(height, width)
    v = ((np.arange(sample.shape[0]) * step + step // 2) - 0.5 * (height - 1)) * scale
    u = ((np.arange(sample.shape[1]) * step + step // 2) - 0.5 * (width - 1)) * scale
    bends = min(height, width) >= MODEL_SIZES * size_px
    factors = _fitted(sample, u, v, bends)
    corners = np.array([-1.0, 0.0, 1.0])
    at_u, at_v = corners * 0.5 * width * scale, corners * 0.5 * height * scale
    ground = _terms(np.tile(at_u, 3), np.repeat(at_v, 3), bends) @ factors
    if not np.ptp(ground) > least_range:
        out.fill(0)
        return False
    whole = np.zeros(6)
    whole[: factors.size] = factors
    _fill(out, whole, scale)
    return True


def light_of(ground: Float32Array, gain: float, sign: float) -> Float32Array:
    """The light (H, W) over that of the median, from the uneven part `ground` (H, W) of a contrast of this `sign`.

    `gain` is that of `FitModel.light_gain`.
    """
    light: Float32Array = np.maximum(1.0 + np.float32(gain * sign) * ground, np.float32(LEAST_LIGHT))
    return light


def _terms(u: FloatArray, v: FloatArray, bends: bool) -> FloatArray:
    terms = [np.ones_like(u), u, v]
    if bends:
        terms += [u * u, u * v, v * v]
    return np.stack(terms, axis=-1)


def _fitted(sample: FloatArray, u: FloatArray, v: FloatArray, bends: bool) -> FloatArray:
    """Factors (3 or 6,) of the polynomial through most of the pixels (H', W') at columns `u` and rows `v`."""
    terms = _terms(np.tile(u, len(v)), np.repeat(v, len(u)), bends)
    values = sample.ravel()
    weight = np.ones_like(values)
    factors: FloatArray = np.zeros(terms.shape[1])
    for _ in range(ROUNDS):
        weighed = terms * weight[:, None]
        factors = np.asarray(
            np.linalg.lstsq(weighed.T @ terms, weighed.T @ values, rcond=None)[0], np.float64
        )
        off = values - terms @ factors
        reach = BIWEIGHT * SCATTER_OF_MAD * float(np.median(np.abs(off - np.median(off))))
        if not reach > 0:
            break
        weight = np.maximum(1.0 - (off / reach) ** 2, 0.0) ** 2
    return np.asarray(factors, np.float64)


@njit(cache=True, nogil=True)
def _fill(out: Float32Array, factors: FloatArray, scale: float) -> None:
    height, width = out.shape
    for i in range(height):
        v = (i - 0.5 * (height - 1)) * scale
        level, slope = factors[0] + factors[2] * v + factors[5] * v * v, factors[1] + factors[4] * v
        for j in range(width):
            u = (j - 0.5 * (width - 1)) * scale
            out[i, j] = np.float32(level + (slope + factors[3] * u) * u)
