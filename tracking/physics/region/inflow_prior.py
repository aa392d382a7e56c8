"""How far the inflow of a region may differ from a developed one, by what the tracks themselves say of it.

The amplitude of a shape that carries no liquid has a normal distribution around 0, whose standard deviation depends
on the opening and the shape,

    log sigma = strength of the opening - c of it (details across) + [along] a + [up] b - [lopsided] e
                - d (details over depth).

A flow is lopsided if it is not the same mirrored at the middle of the depth: one that comes through a channel of
constant depth has none of that, whatever it is seen from above.
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
BEFORE = ((0.0, 1.0), (-1.5, 1.5), (-2.0, 2.0), (3.0, 0.8))
"""The same of a, b, -e and d: shapes along the opening as strong as those normal to it, those up a fourth, lopsided
ones a seventh (from 1 / 50 to as strong). A step of the floor at a distance L leaves exp(-pi L / depth) from each
detail over the depth to the next: L about 1 depth. The tracks do not tell this number; with 2.0 in place of 3.0 the
pressure's error was 1.6 times as large in a bend (3 seeds). Tracks tell little of lopsided flows: with no number of
their own they were taken to be as strong as the others, and most of the stated error of the velocity at openings
was theirs, while the true ones were 0."""
POINTS = 64
"""Points of the integral over these numbers; standard errors then change by less than 3 % with more."""
BROADER = 1.3
"""Standard deviations of the points over those of the normal distribution at the maximum: tails are longer."""
FARTHEST = 4.0
"""Standard deviations to which the numbers may go: a first step without a bound may leave what a computer holds."""
MOST_LOG = 25.0
"""Of a standard deviation over 1 um/s, up or down: beyond it squares leave what a computer holds."""
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
        sigma = np.exp(np.clip((self.mean + numbers * self.deviation) @ self.share, -MOST_LOG, MOST_LOG))
        confidence: FloatArray = 1.0 / np.where(self.carries, UNKNOWN_SPEEDS * self.speed, sigma) ** 2
        return confidence

    def cost(self, numbers: FloatArray, loose: FloatArray, free: FloatArray) -> tuple[float, FloatArray]:
        """Less the logarithm of the evidence and of what was known before, and its slopes (H,), for amplitudes
        `free` (S,) that the tracks give without a prior, with their covariance `loose` (S, S)."""
        square = 1.0 / self.confidence(numbers)
        inverse = safe_inverse(loose + np.diag(square))
        _, log_size = np.linalg.slogdet(loose + np.diag(square))
        towards = inverse @ free
        cost = 0.5 * float(numbers @ numbers + free @ towards + log_size)
        by_log_sigma = np.where(self.carries, 0.0, square * (np.diag(inverse) - towards**2))
        return cost, numbers + self.deviation * (self.share @ by_log_sigma)


def prior_of(flows: RegionFlows, speed: float) -> InflowPrior:
    """What is known before of the amplitudes of flows, for tracks of this velocity, um/s."""
    opening, axis, across, up = flows.shapes
    carries = axis == CARRIES
    openings = np.arange(len(flows.flows.domain.region.openings))
    own = opening == openings[:, None]
    lopsided = (up % 2 == 1) ^ (axis == 2)  # the first shape up is even: it goes one way all over the depth
    share = np.vstack([own, -across * own, axis == 1, axis == 2, lopsided, -up]) * ~carries
    strength = (STRENGTH[0] + math.log(speed), STRENGTH[1])
    known = np.array([strength] * openings.size + [FADING] * openings.size + list(BEFORE))
    return InflowPrior(share.astype(np.float64), known[:, 0], known[:, 1], carries, speed)


def likeliest(prior: InflowPrior, curvature: FloatArray, pull: FloatArray, start: FloatArray) -> FloatArray:
    """The most likely numbers (H,), from normal equations (S, S) and (S,) of the tracks."""
    loose = safe_inverse(curvature)
    found: FloatArray = minimize(
        prior.cost, start, (loose, loose @ pull), jac=True, method="L-BFGS-B", options={"gtol": 0.05},
        bounds=[(-FARTHEST, FARTHEST)] * start.size,
    ).x  # fmt: skip
    return found


def integrated(
    prior: InflowPrior, curvature: FloatArray, pull: FloatArray, best: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Points (P, S) of the confidence in the amplitudes and the probability (P,) of each.

    Importance sampling from a normal distribution at the maximum (Sobol points, so that it is the same each time).
    """
    size = best.size
    loose = safe_inverse(curvature)
    free = loose @ pull
    steps = np.eye(size) * FLAT
    slopes = [[prior.cost(best + sign * step, loose, free)[1] for sign in (1, -1)] for step in steps]
    bend = np.array([above - below for above, below in slopes]) / (2.0 * FLAT)
    values, vectors = np.linalg.eigh((bend + bend.T) / 2.0)
    root = vectors / np.sqrt(np.maximum(values, 0.5))
    unit = norm.ppf(np.clip(qmc.Sobol(size, rng=0).random(POINTS), 1e-9, 1.0 - 1e-9))
    numbers = best + BROADER * unit @ root.T
    costs = np.array([prior.cost(one, loose, free)[0] for one in numbers])
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
