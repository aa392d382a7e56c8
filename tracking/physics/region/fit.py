"""Fits the flow of a region to the velocities of tracks: amplitudes of its possible flows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from stream.errors import ConfigurationError
from tracking.physics.channel.classes import FOLLOWS, Classes, classify
from tracking.physics.channel.sandwich import robust_covariance, safe_inverse
from tracking.physics.region.inflow import RegionFlows
from tracking.physics.region.pieces import Pieces
from tracking.physics.region.places import Places, places_of
from tracking.physics.tracks.velocities import TrackVelocities

FloatArray = npt.NDArray[np.float64]

FEWEST_FOR_EACH = 10
"""Tracks in the region for each flow that carries liquid, below which nothing is fitted."""
UNKNOWN_SPEEDS = 100.0
"""What is known before of the mean velocity through an opening: nothing beyond this times the tracks' velocity."""
STRENGTHS = (1e-4, 10.0)
"""Least and largest scale of the other flows that is tried, over the tracks' velocity."""
FIRST_STRENGTH = 0.3
MARGIN = 3.0
"""Standard errors of its place by which a track may lie beyond a wall."""
ROUNDS_AT_FIRST = 6
ROUNDS = 40
"""Most rounds of classes, strength and amplitudes; it takes 5 to 10."""
DAMPED_FROM = 10
SETTLED = 0.03
"""Standard errors by which an amplitude may still move when the fit ends."""


@dataclass(frozen=True, slots=True, eq=False)
class RegionFit:
    """The flow in a region, from M pieces of tracks.

    `amplitude` (S,) of the `flows`, um/s, and their `covariance` (S, S). `strength_um_s` is the scale of the flows
    that carry no liquid, the most likely one (0 to rounding if the inflow is developed). `design` (3, M, S) are
    the velocities of the flows at the tracks, `residual_um_s` (3, M) measured less expected velocity and
    `variance` (3, M) what is stated for it, without the dispersion of `classes`. `settled` says whether the
    iteration ended by itself."""

    flows: RegionFlows
    amplitude: FloatArray
    covariance: FloatArray
    strength_um_s: float
    tracks: TrackVelocities
    places: Places
    design: FloatArray
    residual_um_s: FloatArray
    variance: FloatArray
    classes: Classes
    settled: bool

    @property
    def weight(self) -> FloatArray:
        """What each velocity counts, (3, M), s^2/um^2."""
        weight: FloatArray = self.classes.probability[FOLLOWS] / (
            self.variance * self.classes.dispersion[:, None] ** 2
        )
        return weight

    def with_error(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """A quantity with `values` (..., S) in each flow at 1 um/s, and its standard error, (...)."""
        variance = np.einsum("...i,ij,...j->...", values, self.covariance, values, optimize=True)
        return values @ self.amplitude, np.sqrt(np.maximum(variance, 0.0))


def fit_region(pieces: Pieces, flows: RegionFlows) -> RegionFit:
    """Fit the amplitudes of the flows by iteratively reweighted least squares.

    A flow that carries no liquid has an amplitude around 0 with the standard deviation `strength` / order^2; the
    strength is the one of highest evidence, the probability of the tracks over all amplitudes (MacKay, Neural
    Computation 4, 415, 1992), found anew in each round. Tracks count by classes and errors as in
    `tracking.physics.channel.fit`, and the covariance is the same robust one; pieces of one track count as
    dependent.

    Raises `ConfigurationError` with too few tracks in the region (`FEWEST_FOR_EACH` for each flow that carries
    liquid)."""
    domain = flows.flows.domain
    tracks = pieces.velocities
    usable = np.isfinite(tracks.velocity_um_s).all(axis=0)
    usable &= np.isfinite(tracks.velocity_sigma_um_s).all(axis=0)
    usable &= np.isfinite(tracks.position_um).all(axis=0) & np.isfinite(tracks.position_sigma_um).all(axis=0)
    pieces = pieces.chosen(np.flatnonzero(usable))
    tracks = pieces.velocities
    pieces = pieces.chosen(domain.region.holds(tracks.position_um, MARGIN * tracks.position_sigma_um))
    tracks = pieces.velocities
    if len(tracks) < FEWEST_FOR_EACH * flows.carrying:
        raise ConfigurationError(
            f"{len(tracks)} trajectories with a height lie in the region, too few for its {flows.carrying} "
            "unknown flow rates; look whether its corners and floor are where the trajectories are, or measure "
            "longer"
        )
    places = places_of(domain, pieces)
    design = np.stack([places.mean @ flows.flows.velocity[axis] for axis in range(3)])
    own = tracks.velocity_sigma_um_s**2
    speed = float(np.sqrt(np.quantile((tracks.velocity_um_s**2).sum(axis=0), 0.9)))
    amplitude = _first(design, tracks.velocity_um_s, own, flows.order, speed)
    strength, settled = 0.0, False
    for count in range(ROUNDS):
        residual, variance, classes = _state(amplitude, flows, places, design, tracks)
        weight = classes.probability[FOLLOWS] / (variance * classes.dispersion[:, None] ** 2)
        curvature, pull = _normal_equations(design, weight, tracks.velocity_um_s)
        strength = _likeliest_strength(curvature, pull, flows.order, speed)
        inverse = safe_inverse(curvature + np.diag(_confidence(flows.order, strength, speed)))
        moved = (inverse @ pull - amplitude) * (1.0 if count < DAMPED_FROM else 0.5)
        amplitude = amplitude + moved
        settled = bool((np.abs(moved) <= SETTLED * np.sqrt(np.diag(inverse))).all())
        if settled:
            break
    residual, variance, classes = _state(amplitude, flows, places, design, tracks)
    weight = classes.probability[FOLLOWS] / (variance * classes.dispersion[:, None] ** 2)
    confidence = _confidence(flows.order, strength, speed)
    covariance = robust_covariance(
        design, weight, residual, confidence, classes.probability[FOLLOWS], tracks.track
    )
    return RegionFit(
        flows, amplitude, covariance, strength, tracks, places, design, residual, variance, classes, settled
    )


def _state(
    amplitude: FloatArray, flows: RegionFlows, places: Places, design: FloatArray, tracks: TrackVelocities
) -> tuple[FloatArray, FloatArray, Classes]:
    """Residuals with these amplitudes, their variances, and the classes."""
    own = tracks.velocity_sigma_um_s**2
    residual = tracks.velocity_um_s - design @ amplitude
    variance = own + places.variance(flows.flows.velocity @ amplitude)
    return residual, variance, classify(residual, variance, tracks.velocity_um_s, own)


def _first(
    design: FloatArray, velocity: FloatArray, own: FloatArray, order: FloatArray, speed: float
) -> FloatArray:
    """Amplitudes for about the least sum of absolute residuals."""
    scale = np.sqrt(own + (0.05 * speed) ** 2)
    amplitude: FloatArray = np.zeros(order.size)
    for _ in range(ROUNDS_AT_FIRST):
        off = np.sqrt((((velocity - design @ amplitude) / scale) ** 2).sum(axis=0))
        curvature, pull = _normal_equations(design, 1.0 / (scale**2 * (1.0 + off)), velocity)
        confidence = _confidence(order, FIRST_STRENGTH * speed, speed)
        amplitude = np.asarray(np.linalg.solve(curvature + np.diag(confidence), pull), np.float64)
    return amplitude


def _normal_equations(
    design: FloatArray, weight: FloatArray, velocity: FloatArray
) -> tuple[FloatArray, FloatArray]:
    weighted = design * weight[..., None]
    both = ((0, 1), (0, 1))
    return np.tensordot(weighted, design, both), np.tensordot(weighted, velocity, both)


def _confidence(order: FloatArray, strength: float, speed: float) -> FloatArray:
    """1 / sigma^2 of what is known of the amplitudes beforehand, (S,)."""
    sigma = np.where(order == 0, UNKNOWN_SPEEDS * speed, strength / np.maximum(order, 1.0) ** 2)
    confidence: FloatArray = 1.0 / sigma**2
    return confidence


def _likeliest_strength(curvature: FloatArray, pull: FloatArray, order: FloatArray, speed: float) -> float:
    """The strength of highest evidence, um/s, with the flows that carry liquid integrated out."""
    carries = order == 0
    scale = 1.0 / order[~carries] ** 2
    main = curvature[np.ix_(carries, carries)] + np.diag(_confidence(order[carries], 1.0, speed))
    shared = np.linalg.solve(main, curvature[np.ix_(carries, ~carries)])
    rest = curvature[np.ix_(~carries, ~carries)] - curvature[np.ix_(~carries, carries)] @ shared
    own, turn = np.linalg.eigh(rest * np.outer(scale, scale))
    own = np.maximum(own, 0.0)
    along = turn.T @ (scale * (pull[~carries] - shared.T @ pull[carries]))

    def less_evidence(log_strength: float) -> float:
        variance = np.exp(2.0 * log_strength)
        return float(np.sum(np.log1p(variance * own) - along**2 * variance / (1.0 + variance * own)))

    low, high = (float(np.log(share * speed)) for share in STRENGTHS)
    tries = np.linspace(low, high, 24)
    best = float(tries[int(np.argmin([less_evidence(one) for one in tries]))])
    step = float(tries[1] - tries[0])
    found = minimize_scalar(less_evidence, bounds=(best - step, best + step), method="bounded")
    return float(np.exp(np.clip(found.x, low, high)))
