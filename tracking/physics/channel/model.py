"""The velocity that the flow in a straight channel gives to each track, where its place is known only nearly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from tracking.physics.channel.parameters import (
    CENTER,
    DEPTH,
    FLOOR,
    INDEX,
    PITCH,
    ROLL,
    SLIP,
    VELOCITY,
    WIDTH,
    YAW,
)
from tracking.physics.sections.choice import profile_of
from tracking.physics.sections.profile import Profile
from tracking.physics.sections.shapes import Section
from tracking.physics.tracks.velocities import TrackVelocities

FloatArray = npt.NDArray[np.float64]

FARTHEST = 5.0
"""Standard errors beyond a wall at which a position counts; those farther out are as likely there as at 5."""


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What a channel's flow gives to M tracks.

    `velocity_um_s` (3, M) is the expected velocity; `shear_variance` (3, M), (um/s)^2, is what its place's error
    adds to the variance of the measured one; `place_um` (2, M) is the expected place in the section, y and z.
    """

    velocity_um_s: FloatArray
    shear_variance: FloatArray
    place_um: FloatArray


def axes_of(theta: FloatArray) -> FloatArray:
    """Unit vectors along the channel, across it and up, as columns (3, 3)."""
    yaw, pitch, roll = (math.radians(theta[angle]) for angle in (YAW, PITCH, ROLL))
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    # The turn about the height (yaw) of the one about y (pitch) of the one about x (roll), multiplied out.
    return np.array(
        [
            [cy * cp, -sy * cr - cy * sp * sr, sy * sr - cy * sp * cr],
            [sy * cp, cy * cr - sy * sp * sr, -cy * sr - sy * sp * cr],
            [sp, cp * sr, cp * cr],
        ]
    )


def in_section(theta: FloatArray, reference_x_um: float, position_um: FloatArray) -> FloatArray:
    """Coordinates along the channel and in its section, (3, M), of positions x, y, height (3, M)."""
    origin = np.array([reference_x_um, theta[CENTER], theta[FLOOR]])
    local: FloatArray = axes_of(theta).T @ (position_um - origin[:, None])
    return local


def section_of(section: Section, theta: FloatArray) -> Section:
    """The section in the size of the parameters."""
    return section.resized(float(theta[WIDTH]), float(theta[DEPTH]))


def flow_of(section: Section, theta: FloatArray) -> Profile:
    """The flow through the section of these parameters."""
    return profile_of(section_of(section, theta), float(theta[SLIP]), float(theta[INDEX]))


def expected_velocity(
    section: Section, theta: FloatArray, reference_x_um: float, tracks: TrackVelocities
) -> Expected:
    """Velocities of tracks of particles that may be anywhere in the section with the same probability.

    The true place of a particle is normally distributed about the measured one, within the walls (posterior). The
    expectation of the velocity over it and over the particle's path comes from five points, the mean and one
    standard deviation to either side along both axes (central differences; exact to second order).
    """
    axes = axes_of(theta)
    local = in_section(theta, reference_x_um, tracks.position_um)[1:]
    blur = axes[:, 1:].T ** 2 @ tracks.position_sigma_um**2
    path = axes[:, 1:].T ** 2 @ tracks.spread_um2
    spans = section_of(section, theta).spans_um(*local)
    mean, variance = within_walls(local, blur, spans)
    reach = np.minimum(mean - spans[:, 0], spans[:, 1] - mean)
    step = np.minimum(np.sqrt(variance + path), np.maximum(reach, 0.0))
    y, z = mean
    places_y = np.concatenate([y, y - step[0], y + step[0], y, y])
    places_z = np.concatenate([z, z, z, z - step[1], z + step[1]])
    here, left, right, below, above = (
        flow_of(section, theta).at(places_y, places_z).reshape(5, -1) * theta[VELOCITY]
    )
    bend = (left + right + below + above) / 2.0 - 2.0 * here
    share = np.divide(variance, variance + path, out=np.zeros_like(path), where=variance > 0)
    slope = share[0] * (right - left) ** 2 / 4.0 + share[1] * (above - below) ** 2 / 4.0
    along = axes[:, 0]
    return Expected(along[:, None] * (here + bend), along[:, None] ** 2 * slope, mean)


def velocity_at(
    section: Section, theta: FloatArray, reference_x_um: float, position_um: FloatArray
) -> FloatArray:
    """Velocity (3, M), um/s, at positions (3, M) in the image's axes; 0 outside the channel."""
    local = in_section(theta, reference_x_um, position_um)
    speed = theta[VELOCITY] * flow_of(section, theta).at(local[1], local[2])
    velocity: FloatArray = axes_of(theta)[:, :1] * speed
    return velocity


def within_walls(
    measured_um: FloatArray, variance_um2: FloatArray, spans_um: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Mean and variance, (2, M), of normal distributions cut off at both ends of spans (2, 2, M)."""
    low, high = spans_um[:, 0], spans_um[:, 1]
    sigma = np.sqrt(variance_um2)
    exact = sigma <= 1e-12 * (high - low)
    narrow = high - low < 1e-4 * sigma  # the distribution is even in between
    width = np.where(exact | narrow, 1.0, sigma)
    centre = np.clip(measured_um, low - FARTHEST * width, high + FARTHEST * width)
    # The distribution is mirrored where its centre is beyond the lower wall, so that no digits are lost.
    mirrored = centre < (low + high) / 2.0
    a = np.where(mirrored, centre - high, low - centre) / width
    b = np.where(mirrored, centre - low, high - centre) / width
    inside = ndtr(b) - ndtr(a)
    at_a, at_b = (np.exp(-(x**2) / 2.0) / math.sqrt(2.0 * math.pi) for x in (a, b))
    inside = np.where(exact | narrow, 1.0, inside)
    shift = (at_a - at_b) / inside
    mean = centre + np.where(mirrored, -shift, shift) * width
    share = 1.0 + (a * at_a - b * at_b) / inside - shift**2
    held = np.clip(measured_um, low, high)
    mean = np.where(exact, held, np.where(narrow, (low + high) / 2.0, np.clip(mean, low, high)))
    variance = np.where(narrow, (high - low) ** 2 / 12.0, np.maximum(share, 0.0) * variance_um2)
    return mean, np.where(exact, 0.0, variance)
