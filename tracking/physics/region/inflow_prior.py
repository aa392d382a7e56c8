"""How far the inflow of a region may differ from a developed one, by what the tracks themselves say of it.

The amplitude of a shape that carries no liquid has a normal distribution around 0, whose standard deviation depends
on the opening and the shape,

    log sigma = strength of the opening - c of it (details across) + [along] a + [up] b - d (details over depth).

These numbers have broad distributions (`BEFORE`), and those after the tracks follow from the evidence, the
probability of the tracks over all amplitudes (MacKay, Neural Computation 4, 415, 1992). They are integrated out,
not put at their best value: how strong the inflow is where no track has been is itself known only nearly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import norm, qmc

from tracking.physics.channel.sandwich import safe_inverse
from tracking.physics.region.inflow import CARRIES, RegionFlows

FloatArray = npt.NDArray[np.float64]

UNKNOWN_SPEEDS = 100.0
"""What is known before of the mean velocity through an opening: nothing beyond this times the tracks' velocity."""
STRENGTH = (math.log(0.1), 2.0)
"""Mean and standard deviation of the logarithm of an opening's strength over the tracks' velocity: from 0.2 % to 5
times it."""
FADING = (1.2, 0.8)
"""The same of c: what stands in the way of the flow at a distance L before an opening of width W leaves
exp(-pi L / W) from each detail to the next, or less, at the opening; from 0.1 to 1 widths."""
BEFORE = ((0.0, 1.0), (-1.5, 1.5), (2.0, 1.5))
"""The same of a, b and d: shapes along the opening as strong as those normal to it, those up a fourth; each detail
over the depth a seventh of the one before. Side channels far from an opening leave nothing over the depth; a step
of the floor near it leaves as much as across."""
POINTS = 64
"""Points of the integral over these numbers; standard errors then change by less than 3 % with more."""
BROADER = 1.3
"""Standard deviations of the points over those of the normal distribution at the maximum: tails are longer."""
FLAT = 1e-3
"""Step of the numerical second derivatives, in standard deviations of what is known before."""


@dataclass(frozen=True, slots=True, eq=False)
class InflowPrior:
    """The distribution of the amplitudes of S flows with H such numbers: their part in each, `share` (H, S), and
    what is known of them before, `mean` and `deviation` (H,). `speed` is that of the tracks, um/s."""

    share: FloatArray
    mean: FloatArray
    deviation: FloatArray
    carries: npt.NDArray[np.bool_]
    speed: float

    def confidence(self, numbers: FloatArray) -> FloatArray:
        """1 / sigma^2 of the amplitudes, (..., S), from numbers (..., H) in standard deviations from their mean."""
        sigma = np.exp((self.mean + numbers * self.deviation) @ self.share)
        confidence: FloatArray = 1.0 / np.where(self.carries, UNKNOWN_SPEEDS * self.speed, sigma) ** 2
        return confidence

    def cost(self, numbers: FloatArray, curvature: FloatArray, pull: FloatArray) -> float:
        """Less the logarithm of the evidence and of what was known before."""
        scale = 1.0 / np.sqrt(self.confidence(numbers))
        factor = np.linalg.cholesky(np.eye(scale.size) + curvature * np.outer(scale, scale))
        along = np.linalg.solve(factor, scale * pull)
        evidence = 0.5 * float(along @ along) - float(np.log(np.diag(factor)).sum())
        return 0.5 * float(numbers @ numbers) - evidence


def prior_of(flows: RegionFlows, speed: float) -> InflowPrior:
    """What is known before of the amplitudes of flows, for tracks of this velocity, um/s."""
    opening, axis, across, up = flows.shapes
    carries = axis == CARRIES
    openings = np.arange(len(flows.flows.domain.region.openings))
    own = opening == openings[:, None]
    share = np.vstack([own, -across * own, axis == 1, axis == 2, -up]) * ~carries
    strength = (STRENGTH[0] + math.log(speed), STRENGTH[1])
    known = np.array([strength] * openings.size + [FADING] * openings.size + list(BEFORE))
    return InflowPrior(share.astype(np.float64), known[:, 0], known[:, 1], carries, speed)


def likeliest(prior: InflowPrior, curvature: FloatArray, pull: FloatArray, start: FloatArray) -> FloatArray:
    """The most likely numbers (H,), from normal equations (S, S) and (S,) of the tracks."""
    found: FloatArray = minimize(
        prior.cost, start, (curvature, pull), method="BFGS", options={"gtol": 0.05}
    ).x
    return found


def integrated(
    prior: InflowPrior, curvature: FloatArray, pull: FloatArray, best: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Points (P, S) of the confidence in the amplitudes and the probability (P,) of each.

    Importance sampling from a normal distribution at the maximum (Sobol points, so that it is the same each time).
    """
    size = best.size
    steps = np.eye(size) * math.sqrt(FLAT)
    around = [
        [sum(s * t * prior.cost(best + s * a + t * b, curvature, pull) for s in (1, -1) for t in (1, -1))
         for b in steps] for a in steps
    ]  # fmt: skip
    values, vectors = np.linalg.eigh(np.array(around) / (4.0 * FLAT))
    root = vectors / np.sqrt(np.maximum(values, 0.5))
    unit = norm.ppf(np.clip(qmc.Sobol(size, rng=0).random(POINTS), 1e-9, 1.0 - 1e-9))
    numbers = best + BROADER * unit @ root.T
    costs = np.array([prior.cost(one, curvature, pull) for one in numbers])
    logs = 0.5 * (unit**2).sum(axis=1) - costs
    weight = np.exp(logs - logs.max())
    return prior.confidence(numbers), weight / weight.sum()


def mixed(
    confidence: FloatArray,
    probability: FloatArray,
    curvature: FloatArray,
    pull: FloatArray,
    firm: FloatArray,
    scatter: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Mean amplitudes (S,) and their covariance (S, S) over points of the confidence.

    `firm` and `scatter` (S, S) are the parts of the robust covariance, see
    `tracking.physics.channel.sandwich.parts_of_covariance`.
    """
    amplitudes = np.stack([safe_inverse(curvature + np.diag(one)) @ pull for one in confidence])
    mean = probability @ amplitudes
    off = (amplitudes - mean) * np.sqrt(probability)[:, None]
    covariance = off.T @ off
    for share, one in zip(probability, confidence, strict=True):
        inverse = safe_inverse(firm + np.diag(one))
        covariance = covariance + share * inverse @ (scatter + np.diag(one)) @ inverse
    return mean, covariance
