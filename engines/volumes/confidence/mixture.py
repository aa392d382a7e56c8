"""The probability that a particle is there: a local false-discovery rate that knows how bright particles are.

Found places are those of noise, whose number is known (`FalseAlarms`), and those of particles, of which neither
number nor brightness is. The brightness of all particles of the volume is estimated as weights on a grid of
amplitudes, by maximum likelihood (Kiefer & Wolfowitz 1956; Efron 2010, Large-Scale Inference, ch. 5). Then

    p = f / (f + n(s)),   f = sum_j w_j phi(s | A_j k)    (1)

is the probability of a particle at a place, where s is its strength, n(s) the density of noise maxima, w_j the
number of particles of amplitude A_j and k the
strength of an amplitude of 1 there: less at the ends of the stack and where the background is bright. So the same p
holds for faint and bright particles, and for a few and for many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from engines.volumes.confidence.false_alarms import FalseAlarms

FloatArray = npt.NDArray[np.float64]

STEP = 0.4
"""Distance of the amplitudes, in standard deviations of strength: less than half of what tells two apart."""
LARGEST = 9.0
"""Strength above which noise is not considered: in 1e9 voxels it has no maximum there."""
PRIOR_PARTICLES = 0.1
"""Particles of any brightness that are taken for granted: a lone one is then believed where noise does the same
once in about a hundred volumes. Ten times as many lower that level by 0.4 sigma, in volumes without others only."""
FEW = 2.0
"""Particles found count as n / (n + `FEW`) of themselves: one or two alone are no evidence that there are
particles as faint as they are."""
ROUNDS = 60
"""Rounds of the estimate; more change no probability by 0.01."""
DETECTED_LEAST = 0.02
"""Least part of the particles of an amplitude that is taken to be above the least strength."""


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """What a volume holds: noise, and particles of `amplitudes` (J,) with `weights` (J,), their numbers."""

    false_alarms: FalseAlarms
    amplitudes: FloatArray
    weights: FloatArray

    def probability(self, strength: FloatArray, unit: FloatArray) -> FloatArray:
        """Probability (N,) that places of this `strength` are particles; `unit` is k of (1), per grey value."""
        s = np.minimum(strength, LARGEST)
        particles = _likelihoods(s, unit, self.amplitudes, self.false_alarms.dimensions) @ self.weights
        noise = self.false_alarms.density(np.maximum(s, 2.0))
        p = particles / np.maximum(particles + noise, 1e-300)
        return np.where(strength >= LARGEST, 1.0, p)


def estimate_mixture(
    strength: FloatArray, unit: FloatArray, least: float, false_alarms: FalseAlarms
) -> Mixture:
    """The mixture from all places (N,) of at least `least` strength; `unit` is the strength of 1 grey
    value there."""
    typical = float(np.median(unit)) if unit.size else 1.0
    targets = np.arange(least - 1.5, LARGEST + STEP, STEP)
    amplitudes = targets / typical
    prior = np.full(targets.size, PRIOR_PARTICLES / targets.size)
    chosen = (strength >= least) & (strength < LARGEST)
    s, k = strength[chosen], unit[chosen]
    likelihoods = _likelihoods(s, k, amplitudes, false_alarms.dimensions)
    noise = false_alarms.density(s)
    expected = _strength_of(targets, false_alarms.dimensions)
    seen = np.maximum(ndtr(expected - least) - ndtr(expected - LARGEST), DETECTED_LEAST)
    weights = prior + 1.0
    for _ in range(ROUNDS if s.size else 0):
        total = likelihoods @ weights + noise
        found = weights * (likelihoods.T @ (1 / total))
        number = float(found.sum())
        weights = prior + found / seen * (number / (number + FEW))
    return Mixture(false_alarms, amplitudes, weights if s.size else prior)


def _strength_of(true: FloatArray, dimensions: int) -> FloatArray:
    """Mean strength at the maximum beside a particle of this true strength: each dimension adds 1 to its square."""
    return np.asarray(np.sqrt(np.maximum(true, 0.0) ** 2 + dimensions))


def _likelihoods(s: FloatArray, unit: FloatArray, amplitudes: FloatArray, dimensions: int) -> FloatArray:
    """phi of (1), (N, J)."""
    off = s[:, None] - _strength_of(unit[:, None] * amplitudes, dimensions)
    return np.asarray(np.exp(-0.5 * off**2) / math.sqrt(2 * math.pi))
