"""Which of two kinds of particles an image shows: that whose PSF model leaves less of it.

Where the network is not sure of a particle's kind, the particle is fitted with each kind's PSF model, beside all
other particles as they were fitted. The difference of the chi-squares over the pixels that either image reaches,
over the reduced chi-square of the better fit (models are never quite right), is twice the logarithm of the odds;
kinds are as likely as one another before.
"""

from __future__ import annotations

import numpy as np

from engines.refine.arguments import BoolArray, Float32Array, FloatArray, Psf
from engines.refine.rendering import X, Y, put

SURE = 0.99
"""Probability from which the network's word is taken: of a hundred such particles one at most is of another kind,
if it is honest. The others take a second fit. Not varied."""


def excess_of_other(
    left: Float32Array,
    own: tuple[FloatArray, Psf],
    other: tuple[FloatArray, Psf],
    noise: tuple[float, float],
    sign: float,
    scratch: Float32Array,
) -> float:
    """Chi-square that a particle as the `other` kind (theta (4,), PSF) leaves, less that as its `own`.

    `left` (H, W) is what all particles with this one as its own kind leave of the contrast; `noise` its variance,
    (read, shot x relative brightness), with `sign` of what contrast adds to the light; `scratch` (H, W) is 0, and
    is again. In units of the reduced chi-square of the better one.
    """
    height, width = left.shape
    row, column = round(float(own[0][Y])), round(float(own[0][X]))
    reach_px = 1 + max(int(psf.extent_px.max()) for _, psf in (own, other))
    box = np.s_[
        max(row - reach_px, 0) : min(row + reach_px + 1, height),
        max(column - reach_px, 0) : min(column + reach_px + 1, width),
    ]
    drawn = []
    for theta, psf in (own, other):
        put(scratch, theta, 1.0, psf)
        drawn.append(scratch[box].astype(np.float64))
        scratch.fill(0)
    rest = left[box].astype(np.float64)
    variance = np.maximum(noise[0] + noise[1] * np.maximum(1 + sign * drawn[0], 0.0), 1e-30)
    mine = float((rest**2 / variance).sum())
    theirs = float(((rest + drawn[0] - drawn[1]) ** 2 / variance).sum())
    reduced = max(1.0, min(mine, theirs) / max(rest.size, 1))
    return (theirs - mine) / reduced


def probabilities(excess: FloatArray) -> FloatArray:
    """Probability (N, K) of each kind from its excess of chi-square (N, K); NaN where it was not fitted is 0."""
    log_odds = np.where(np.isfinite(excess), -0.5 * excess, -np.inf)
    log_odds = log_odds - log_odds.max(axis=1, keepdims=True)
    odds = np.exp(log_odds)
    found: FloatArray = odds / odds.sum(axis=1, keepdims=True)
    return found


def unsure(kind: FloatArray, p_kind: FloatArray) -> BoolArray:
    """Particles (N,) of a known kind of which the network is not sure."""
    found: BoolArray = np.isfinite(kind) & ~(p_kind >= SURE)
    return found
