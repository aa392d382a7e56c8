"""Fits the flow of a region to the velocities of tracks: amplitudes of its possible flows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.errors import ConfigurationError
from tracking.physics.channel.classes import FOLLOWS, Classes, classify
from tracking.physics.channel.sandwich import parts_of_covariance, safe_inverse
from tracking.physics.region.inflow import CARRIES, RegionFlows
from tracking.physics.region.inflow_prior import integrated, likeliest, mixed, prior_of
from tracking.physics.region.pieces import Pieces
from tracking.physics.region.places import Places, places_of
from tracking.physics.tracks.velocities import TrackVelocities

FloatArray = npt.NDArray[np.float64]

FEWEST_FOR_EACH = 10
"""Tracks in the region for each flow that carries liquid, below which nothing is fitted."""
MARGIN = 3.0
"""Standard errors of its place by which a track may lie beyond a wall."""
ROUNDS_AT_FIRST = 6
ROUNDS = 40
"""Most rounds of classes, strength and amplitudes; it takes 5 to 10."""
DAMPED_FROM = 10
SETTLED = 0.03
"""Standard errors by which an amplitude may still move when the fit ends."""


MESH_SHARE = 0.5
"""Error of a mesh over the difference to one with sides twice as long. Where flows are smooth it is less, but edges
let errors fall by half to two thirds only: in a step to half the width, with two functions over the depth less in
the coarser one, against quartic triangles of half the side: 0.44 for the velocity, 0.5 to 0.7 for the shear on
walls, 0.2 for its mean and the pressure."""


@dataclass(frozen=True, slots=True, eq=False)
class RegionFit:
    """The flow in a region, from M pieces of tracks.

    `amplitude` (S,) of the `flows`, um/s, and their `covariance` (S, S). `coarser` are the flows on a mesh with
    sides twice as long, and the amplitudes that the same tracks give them. `design` (3, M, S) are the velocities of
    the flows at the tracks, `residual_um_s` (3, M) measured less expected velocity and `variance` (3, M) what is
    stated for it, without the dispersion of `classes`. `settled` says whether the iteration ended by itself."""

    flows: RegionFlows
    amplitude: FloatArray
    covariance: FloatArray
    coarser: tuple[RegionFlows, FloatArray]
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

    @property
    def undeveloped_um_s(self) -> dict[str, float]:
        """By opening, how far the inflow is from a developed one: root of the sum of its shapes' squares, um/s."""
        opening, axis, *_ = self.flows.shapes
        own = {
            name: self.amplitude[(opening == number) & (axis != CARRIES)]
            for number, (name, _) in enumerate(self.flows.flows.domain.region.openings)
        }
        return {name: float(np.linalg.norm(amplitude)) for name, amplitude in own.items()}

    def with_error(self, quantity: Callable[[RegionFlows], FloatArray]) -> tuple[FloatArray, FloatArray]:
        """A quantity that has the values (..., S) in each of some flows at 1 um/s, and its standard error, (...).

        To the error of the amplitudes comes that of the mesh: `MESH_SHARE` of the difference to the fit with the
        coarser one."""
        values = quantity(self.flows)
        variance = np.einsum("...i,ij,...j->...", values, self.covariance, values, optimize=True)
        flows, amplitude = self.coarser
        found = values @ self.amplitude
        mesh = MESH_SHARE * (quantity(flows) @ amplitude - found)
        return found, np.sqrt(np.maximum(variance, 0.0) + mesh**2)


def fit_region(pieces: Pieces, flows: RegionFlows, coarser: RegionFlows) -> RegionFit:
    """Fit the amplitudes of the flows by iteratively reweighted least squares.

    How strong the flows are that carry no liquid the tracks say themselves
    (`tracking.physics.region.inflow_prior`). Tracks count by classes and errors as in
    `tracking.physics.channel.fit`, and the covariance is a robust one like there; pieces of one track count as
    dependent. `coarser` are the same flows on a mesh with sides twice as long.

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
    prior = prior_of(flows, speed)
    numbers = np.zeros(prior.mean.size)
    amplitude = _first(design, tracks.velocity_um_s, own, prior.confidence(numbers), speed)
    settled = False
    for count in range(ROUNDS):
        _, variance, classes = _state(amplitude, flows, places, design, tracks)
        weight = classes.probability[FOLLOWS] / (variance * classes.dispersion[:, None] ** 2)
        curvature, pull = _normal_equations(design, weight, tracks.velocity_um_s)
        numbers = likeliest(prior, curvature, pull, numbers)
        inverse = safe_inverse(curvature + np.diag(prior.confidence(numbers)))
        moved = (inverse @ pull - amplitude) * (1.0 if count < DAMPED_FROM else 0.5)
        amplitude = amplitude + moved
        settled = bool((np.abs(moved) <= SETTLED * np.sqrt(np.diag(inverse))).all())
        if settled:
            break
    residual, variance, classes = _state(amplitude, flows, places, design, tracks)
    weight = classes.probability[FOLLOWS] / (variance * classes.dispersion[:, None] ** 2)
    follows, likely = classes.probability[FOLLOWS], prior.confidence(numbers)
    firm, scatter = parts_of_covariance(design, weight, residual, likely, follows, tracks.track)
    curvature, pull = _normal_equations(design, weight, tracks.velocity_um_s)
    confidence, probability = integrated(prior, curvature, pull, numbers)
    amplitude, covariance = mixed(confidence, probability, curvature, pull, firm, scatter)
    elsewhere = places_of(coarser.flows.domain, pieces).mean
    other = np.stack([elsewhere @ coarser.flows.velocity[axis] for axis in range(3)])
    curvature, pull = _normal_equations(other, weight, tracks.velocity_um_s)
    there, _ = mixed(confidence, probability, curvature, pull, firm, scatter)
    residual, variance, classes = _state(amplitude, flows, places, design, tracks)
    return RegionFit(
        flows, amplitude, covariance, (coarser, there), tracks, places, design, residual, variance,
        classes, settled,
    )  # fmt: skip


def _state(
    amplitude: FloatArray, flows: RegionFlows, places: Places, design: FloatArray, tracks: TrackVelocities
) -> tuple[FloatArray, FloatArray, Classes]:
    """Residuals with these amplitudes, their variances, and the classes."""
    own = tracks.velocity_sigma_um_s**2
    residual = tracks.velocity_um_s - design @ amplitude
    variance = own + places.variance(flows.flows.velocity @ amplitude)
    return residual, variance, classify(residual, variance, tracks.velocity_um_s, own)


def _first(
    design: FloatArray, velocity: FloatArray, own: FloatArray, confidence: FloatArray, speed: float
) -> FloatArray:
    """Amplitudes for about the least sum of absolute residuals."""
    scale = np.sqrt(own + (0.05 * speed) ** 2)
    amplitude: FloatArray = np.zeros(confidence.size)
    for _ in range(ROUNDS_AT_FIRST):
        off = np.sqrt((((velocity - design @ amplitude) / scale) ** 2).sum(axis=0))
        curvature, pull = _normal_equations(design, 1.0 / (scale**2 * (1.0 + off)), velocity)
        amplitude = np.asarray(np.linalg.solve(curvature + np.diag(confidence), pull), np.float64)
    return amplitude


def _normal_equations(
    design: FloatArray, weight: FloatArray, velocity: FloatArray
) -> tuple[FloatArray, FloatArray]:
    weighted = design * weight[..., None]
    both = ((0, 1), (0, 1))
    return np.tensordot(weighted, design, both), np.tensordot(weighted, velocity, both)
