"""Where the fit of a channel begins: direction, walls and velocity from the tracks themselves."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tracking.physics.channel.model import axes_of, flow_of, in_section
from tracking.physics.channel.parameters import CENTER, FLOOR, VELOCITY, YAW, Prior
from tracking.physics.sections.shapes import Section
from tracking.physics.tracks.velocities import TrackVelocities

FloatArray = npt.NDArray[np.float64]

MOST_TRACKS = 600
"""Tracks that are tried at each place; the start has to be right within a tenth of the section only."""
PLACES = 17
"""Places tried along each axis on which the channel's is unknown."""


def begin(tracks: TrackVelocities, section: Section, prior: Prior, reference_x_um: float) -> FloatArray:
    """The parameters (10,): those known beforehand; a direction, walls and velocity that suit the tracks.

    Center and floor are looked for where their values are NaN: over all places at which the middle of the tracks is
    inside the section, by the sum of the absolute residuals.
    """
    theta = prior.value.copy()
    step = max(len(tracks) // MOST_TRACKS, 1)
    some = tracks.chosen(np.arange(0, len(tracks), step))
    weight = 1.0 / (some.velocity_sigma_um_s[0] ** 2 + np.median(some.velocity_sigma_um_s[0]) ** 2)
    if math.isnan(theta[YAW]):
        vx, vy = some.velocity_um_s[:2]
        slope = float(np.sum(weight * vx * vy) / np.sum(weight * vx * vx))
        theta[YAW] = math.degrees(math.atan(slope))
    middle = np.median(some.position_um, axis=1)
    look = [index for index in (CENTER, FLOOR) if math.isnan(theta[index])]
    size = {CENTER: section.width_um, FLOOR: section.depth_um}
    for index in look:
        theta[index] = middle[1] if index == CENTER else middle[2] - section.depth_um / 2.0
    shares = np.linspace(-0.5, 0.5, PLACES)
    tries = [theta]
    for index in look:
        tries = [_shifted(one, index, share * size[index]) for one in tries for share in shares]
    best, least = theta, math.inf
    for one in tries:
        speed, misfit = _tried(some, section, one, reference_x_um, weight)
        if misfit < least:
            best, least = one.copy(), misfit
            best[VELOCITY] = speed if math.isinf(prior.sigma[VELOCITY]) else theta[VELOCITY]
    return best


def _shifted(theta: FloatArray, index: int, by_um: float) -> FloatArray:
    moved = theta.copy()
    moved[index] += by_um
    return moved


def _tried(
    tracks: TrackVelocities, section: Section, theta: FloatArray, reference_x_um: float, weight: FloatArray
) -> tuple[float, float]:
    """The mean velocity that suits a place best, and the mean absolute residual."""
    local = in_section(theta, reference_x_um, tracks.position_um)
    shape = flow_of(section, theta).at(local[1], local[2])
    along = axes_of(theta)[:, 0] @ tracks.velocity_um_s
    known = float(np.sum(weight * shape**2))
    speed = float(np.sum(weight * shape * along)) / known if known > 0 else 0.0
    return speed, float(np.mean(np.abs(along - speed * shape)))
