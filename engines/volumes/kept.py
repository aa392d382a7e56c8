"""Which of a volume's places are kept: how sure each is, before the fit and after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from scipy.special import expit, logit

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
BESIDE = 3.0
"""Standard deviations of a spot within which one particle explains part of the light of another."""
SURE_PLACE = 0.99
SAME_PLACE = 1.0
"""Standard deviations of a spot within which two places are one."""


@dataclass(frozen=True, slots=True, eq=False)
class Prospects:
    """The places worth a fit with their probabilities (N,), how many are not, and what the volume holds.

    `told` (N,) is the probability that a network gives, NaN where none does.
    """

    proposals: Proposals
    probability: FloatArray
    left_out: int
    mixture: Mixture
    told: FloatArray

    def with_those_of(self, network: Proposals, sigma_voxels: tuple[float, float, float]) -> Prospects:
        """These and the places of a network; where both have one, it is the network's, as sure as the surer."""
        if not len(network):
            return self
        z, y, x = sigma_voxels
        ours, theirs = (np.stack([p.x / x, p.y / y, p.z / z], axis=1) for p in (self.proposals, network))
        nearest = cKDTree(theirs).query(ours.reshape(-1, 3), distance_upper_bound=SAME_PLACE)
        apart, same = np.asarray(nearest[0]), np.asarray(nearest[1])
        kept = np.isinf(apart)
        mine, probable = self.proposals.take(kept), network.probability.copy()
        np.maximum.at(probable, same[~kept], self.probability[~kept])
        return Prospects(
            network.joined(mine),
            np.concatenate([probable, self.probability[kept]]),
            self.left_out,
            self.mixture,
            np.concatenate([network.probability, self.told[kept]]),
        )


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
    mixture = estimate_mixture(strength, unit, least_strength, false_alarms)
    probability = mixture.probability(strength, unit)
    worth = probability >= WORTH_A_FIT
    left_out = int((~worth).sum())
    told = np.full(int(worth.sum()), np.nan)
    return Prospects(proposals.take(worth), probability[worth], left_out, mixture, told)


def fitted_probability(
    fitted: Fitted, found: Prospects, used: Noise, whole: Noise, sigma_voxels: tuple[float, float, float]
) -> FloatArray:
    """Probability (N,) that fitted places are particles, by their log-likelihood ratios and by a network.

    `used` is the noise of the fit, `whole` that of the search, with all that looks like spots in the background:
    it makes lone places doubtful, while two beside each other are told apart in the fit's own noise. Of two that
    are both doubted at a place where surely something is, the brighter one is as sure as the place.

    Where there are both, the mean of their log odds if that is more. A network knows better where particles
    overlap (F1 .991 with it, .989 without), but of lone faint ones no more than the likelihood ratio does: at a
    signal-to-noise ratio of 1 the mean for all gave F1 .62, this .66.
    """
    partner = _partners(fitted, sigma_voxels)
    beside = partner >= 0
    more = whole.variance(fitted.background) / used.variance(fitted.background)
    more = np.where(beside, 1.0, np.maximum(more, 1.0))
    strength = np.sqrt(np.maximum(fitted.log_likelihood_ratio / more, 0.0))
    good = (strength > 0) & (fitted.amplitude > 0)
    unit = np.where(good, strength / np.maximum(fitted.amplitude, LEAST_AMPLITUDE), 1.0)
    own = np.where(good, found.mixture.probability(strength, unit), 0.0)
    told, place = np.full(len(fitted), np.nan), np.zeros(len(fitted))
    proposed = fitted.source >= 0
    told[proposed] = found.told[fitted.source[proposed]]
    place[proposed] = found.probability[fitted.source[proposed]]
    both = expit(0.5 * (logit(_inside(own)) + logit(_inside(told))))
    result = np.where(np.isnan(told) | (own <= 0), own, np.maximum(own, both))
    place = np.where(beside, np.maximum(place, place[partner]), 0.0)
    brighter = good & (fitted.amplitude >= fitted.amplitude[partner])
    doubted = np.maximum(result, result[partner]) < place
    return np.asarray(np.where(beside & brighter & doubted & (place > SURE_PLACE), place, result))


def _partners(fitted: Fitted, sigma_voxels: tuple[float, float, float]) -> npt.NDArray[np.int64]:
    """The row (N,) of the nearest other particle within `BESIDE`; -1 where there is none."""
    if len(fitted) < 2:
        return np.full(len(fitted), -1)
    z, y, x = sigma_voxels
    places = np.stack([fitted.z / z, fitted.y / y, fitted.x / x], axis=1)
    apart, row = cKDTree(places).query(places, k=2, distance_upper_bound=BESIDE)
    nearest, other = np.asarray(apart)[:, 1], np.asarray(row)[:, 1]
    return np.where(np.isfinite(nearest), other, -1).astype(np.int64)


def _inside(probability: FloatArray) -> FloatArray:
    return np.clip(probability, 1e-6, 1 - 1e-6)
