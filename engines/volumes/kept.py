"""Which of a volume's places are kept: how sure each is, before the fit and after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.volumes.confidence.false_alarms import FalseAlarms, signed_root
from engines.volumes.confidence.mixture import Mixture, estimate_mixture
from engines.volumes.fit.spots import Fitted
from engines.volumes.proposal import Proposals
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import Noise

FloatArray = npt.NDArray[np.float64]

WORTH_A_FIT = 0.03
"""Probability from which a place is fitted: the fit seldom makes ten times as much of it, and each costs 0.1 ms."""
LEAST_AMPLITUDE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Prospects:
    """The places worth a fit with their probabilities (N,), how many are not, and what the volume holds."""

    proposals: Proposals
    probability: FloatArray
    left_out: int
    mixture: Mixture


def prospects(
    proposals: Proposals,
    least_strength: float,
    false_alarms: FalseAlarms,
    skewness: float,
    background: Background,
    noise: Noise,
) -> Prospects:
    """What a volume holds by the strengths of its places, and those of them that may be particles.

    `skewness` is that of a filter's answer to noise whose own is 1.
    """
    spread = np.sqrt(noise.variance(background.at(proposals.x, proposals.y, proposals.z)))
    strength = signed_root(proposals.strength, skewness * noise.gain / spread)
    unit = strength / np.maximum(proposals.amplitude, LEAST_AMPLITUDE)
    least = least_strength if not strength.size else max(least_strength, float(signed_root(least_strength, 0.0)))
    mixture = estimate_mixture(strength, unit, least, false_alarms)
    probability = mixture.probability(strength, unit)
    known = np.isfinite(proposals.probability)
    probability[known] = proposals.probability[known]
    worth = probability >= WORTH_A_FIT
    return Prospects(proposals.take(worth), probability[worth], int((~worth).sum()), mixture)


def fitted_probability(fitted: Fitted, mixture: Mixture) -> FloatArray:
    """Probability (N,) that fitted places are particles, by their log-likelihood ratios."""
    strength = np.sqrt(np.maximum(fitted.log_likelihood_ratio, 0.0))
    good = (strength > 0) & (fitted.amplitude > 0)
    unit = np.where(good, strength / np.maximum(fitted.amplitude, LEAST_AMPLITUDE), 1.0)
    return np.where(good, mixture.probability(strength, unit), 0.0)
