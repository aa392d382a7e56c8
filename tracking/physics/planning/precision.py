"""The standard errors that a planned experiment will end with, from the Fisher information of the channel's fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tracking.physics.channel.derived import UM3_PER_UL
from tracking.physics.channel.fit import ChannelFit, difference_of, expected_fit
from tracking.physics.channel.model import flow_of, section_of
from tracking.physics.channel.parameters import (
    CENTER,
    DEPTH,
    FLOOR,
    INDEX,
    PARAMETERS,
    VELOCITY,
    WIDTH,
    Prior,
)
from tracking.physics.planning.tracks import tracks_of
from tracking.physics.planning.view import Slices, View
from tracking.physics.sections.shapes import Section
from tracking.physics.tracks.velocities import TrackVelocities, joined

FloatArray = npt.NDArray[np.float64]

GRID = 9
"""Places along y and along z at which the error of the profile is looked at."""
MIDDLE_X_UM = 0.0
"""Of the image, where floor and middle of the channel are meant."""
RELATIVE = ("profile", "flow_rate", "wall_shear", "pressure_gradient")
LENGTHS = ("floor_um", "ceiling_um", "depth_um", "width_um", "center_y_um")
QUANTITIES = (*RELATIVE, *LENGTHS)
"""What can be planned of the flow. The error of the first ones is relative: of the profile the root mean square
over the section, over the largest velocity; of the others to their value. The lengths have errors in um."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A view, the flow that is expected (`theta` (10,)), what is known of it beforehand, and the slices."""

    view: View
    section: Section
    theta: FloatArray
    prior: Prior
    slices: Slices


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a plan gives: the fit without residuals, how often each of its tracks comes, (M,), how many there will
    be in each slice, (J,), and how many detections they have on average."""

    fit: ChannelFit
    count: FloatArray
    tracks: FloatArray
    mean_detections: float


def outcome(plan: Plan) -> Outcome | None:
    """The fit that the plan ends with; None if no slice has a track.

    The tracks are random, each comes a number of times with Poisson's distribution, and the mean of an inverse is
    larger than the inverse of the mean: see `_of_random_tracks`.
    """
    parts = tracks_of(plan.view, plan.section, plan.theta, plan.slices)
    counts = np.array([count.sum() for _, count in parts])
    if not counts.sum() > 0:
        return None
    tracks = joined([part for part, _ in parts])
    count = np.concatenate([number for _, number in parts])
    fit = expected_fit(tracks, plan.section, plan.prior, plan.theta, count, MIDDLE_X_UM)
    fit = replace(fit, covariance=_of_random_tracks(fit, count))
    return Outcome(fit, count, counts, float(np.average(tracks.length, weights=count)))


def _of_random_tracks(fit: ChannelFit, count: FloatArray) -> FloatArray:
    """The mean covariance (10, 10) if each track comes a random number of times, `count` (M,) on average.

    To second order, C + C (sum of count_i I_i C I_i) C for tracks with the information I_i. Where all tell the same
    that is (p + 1) / n more for p unknowns; a depth is told by the few tracks near the walls: more uncertain.
    """
    free = fit.prior.free
    covariance = fit.covariance[np.ix_(free, free)]
    own = np.einsum("amp,am,amq->mpq", fit.jacobian, 1.0 / fit.variance, fit.jacobian, optimize=True)
    scatter = np.einsum("m,mij,jk,mkl->il", count, own, covariance, own, optimize=True)
    found = fit.covariance.copy()
    found[np.ix_(free, free)] += covariance @ scatter @ covariance
    return found


def errors_of(
    fit: ChannelFit, quantities: tuple[str, ...], consistency_error: float = 0.0
) -> dict[str, float]:
    """Standard errors by quantity, as `QUANTITIES` says; `consistency_error` is that of the viscosity, relative."""
    found = {}
    for name in quantities:
        error = math.sqrt(float(np.sum(gradients(fit, name) @ fit.covariance * gradients(fit, name))))
        found[name] = math.hypot(error, consistency_error if name in RELATIVE[2:] else 0.0)
    return found


def gradients(fit: ChannelFit, quantity: str) -> FloatArray:
    """Rows (R, 10) whose product with the covariance, summed up, is the variance of the quantity."""
    if quantity in LENGTHS:
        row = np.zeros((1, len(PARAMETERS)))
        for index in _LENGTHS[quantity]:
            row[0, index] = 1.0
        return row
    function = _FUNCTIONS[quantity]
    here = function(fit, fit.theta)
    slope = np.zeros((here.size, len(PARAMETERS)))
    for index in fit.prior.free:
        moved = fit.theta.copy()
        step = difference_of(fit.theta, int(index))
        moved[index] += step
        slope[:, index] = (function(fit, moved) - here) / step
    if quantity == "profile":
        largest = float(np.abs(here).max())
        rows: FloatArray = slope / (largest * math.sqrt(here.size))
        return rows
    return slope / here[:, None]


def _profile(fit: ChannelFit, theta: FloatArray) -> FloatArray:
    """Velocities at places that keep their share of width and depth."""
    share = (np.arange(GRID) + 0.5) / GRID
    section = section_of(fit.section, theta)
    y, z = np.meshgrid((share - 0.5) * section.width_um, share * section.depth_um)
    velocity: FloatArray = theta[VELOCITY] * flow_of(fit.section, theta).at(y.ravel(), z.ravel())
    return velocity


def _flow_rate(fit: ChannelFit, theta: FloatArray) -> FloatArray:
    return np.array([theta[VELOCITY] * section_of(fit.section, theta).area_um2 / UM3_PER_UL])


def _wall_shear(fit: ChannelFit, theta: FloatArray) -> FloatArray:
    """Mean over the wall, at a consistency of 1."""
    wall = flow_of(fit.section, theta).wall()
    rate = np.abs(theta[VELOCITY]) * wall.shear_per_um
    return np.array([np.average(rate ** theta[INDEX], weights=wall.length_um)])


def _pressure_gradient(fit: ChannelFit, theta: FloatArray) -> FloatArray:
    """At a consistency of 1."""
    return np.array([abs(theta[VELOCITY]) ** theta[INDEX] * flow_of(fit.section, theta).resistance])


_FUNCTIONS: dict[str, Callable[[ChannelFit, FloatArray], FloatArray]] = {
    "profile": _profile,
    "flow_rate": _flow_rate,
    "wall_shear": _wall_shear,
    "pressure_gradient": _pressure_gradient,
}
_LENGTHS = {
    "floor_um": (FLOOR,),
    "ceiling_um": (FLOOR, DEPTH),
    "depth_um": (DEPTH,),
    "width_um": (WIDTH,),
    "center_y_um": (CENTER,),
}


def information_by_slice(plan: Plan) -> list[FloatArray]:
    """What each slice says of the free parameters, (free, free) each, per frame."""
    found = []
    free = plan.prior.free
    for (tracks, count), frames in zip(
        tracks_of(plan.view, plan.section, plan.theta, plan.slices), plan.slices.frames, strict=True
    ):
        found.append(_information(tracks, count, plan)[np.ix_(free, free)] / frames)
    return found


def _information(tracks: TrackVelocities, count: FloatArray, plan: Plan) -> FloatArray:
    total = np.zeros((len(PARAMETERS), len(PARAMETERS)))
    if not len(tracks):
        return total
    fit = expected_fit(tracks, plan.section, plan.prior, plan.theta, count, MIDDLE_X_UM)
    weighted = fit.jacobian * (count / fit.variance)[..., None]
    free = plan.prior.free
    total[np.ix_(free, free)] = np.tensordot(weighted, fit.jacobian, ((0, 1), (0, 1)))
    return total
