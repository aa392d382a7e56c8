"""The tracks that a planned experiment will give, as a few hundred typical ones and how often each comes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, qmc

from tracking.physics.channel.model import flow_of, section_of
from tracking.physics.channel.parameters import CENTER, FLOOR, VELOCITY
from tracking.physics.planning.view import Slices, View
from tracking.physics.sections.shapes import Section
from tracking.physics.tracks.velocities import TrackVelocities

FloatArray = npt.NDArray[np.float64]

TYPICAL = 512
"""Tracks that stand for all of a slice; with 2,048 the predicted standard errors change by 1 %."""
SMALLEST_TURN = 1e-3
"""Least of theta (m + 1) in `information_about_velocity`; below it the closed form loses digits, and the diffusion
that it stands for matters to less than 1e-7."""


def information_about_velocity(
    detections: FloatArray, interval_s: FloatArray, sigma_um: FloatArray, diffusion_um2_s: float
) -> FloatArray:
    """1 / variance, s^2/um^2, of the velocity of tracks with equal times and errors; arrays that broadcast.

    What `tracking.physics.tracks.information` arrives at, in closed form: the m = n - 1 displacements have a
    tridiagonal Toeplitz covariance S with 2 D dt + 2 s^2 and -s^2, and the information is dt^2 1' S^-1 1 with
    (S^-1 1)_i = (1 - cosh(theta (i - (m+1)/2)) / cosh(theta (m+1)/2)) / (2 D dt), cosh theta = 1 + D dt / s^2.
    """
    m = np.maximum(detections - 1.0, 1.0)
    least = SMALLEST_TURN / (m + 1.0)
    walk = np.maximum(diffusion_um2_s * interval_s, 0.5 * least**2 * sigma_um**2)
    turn = 2.0 * np.arcsinh(np.sqrt(walk / 2.0) / sigma_um)
    sinh_ratio = -np.expm1(-turn * m) * np.exp(-turn / 2.0)
    edges = sinh_ratio / (np.sinh(turn / 2.0) * (1.0 + np.exp(-turn * (m + 1.0))))
    known: FloatArray = interval_s**2 * (m - edges) / (2.0 * walk)
    return known


def tracks_of_slice(
    view: View, section: Section, theta: FloatArray, focus_um: float, frames: float, typical: int = TYPICAL
) -> tuple[TrackVelocities, FloatArray]:
    """Typical tracks of one slice (M of them), and how many of each there will be, (M,).

    Particles are spread evenly and move with the flow along x. Each is seen from when it enters the image, or the
    slice begins, until it leaves or the slice ends. That Brownian motion takes some over an edge earlier and brings
    as many in is left out. The flow `theta` (10,) has no yaw, pitch or roll.
    """
    channel = section_of(section, theta)
    low_z, high_z = view.heights_um(focus_um)
    floor, centre = float(theta[FLOOR]), float(theta[CENTER])
    low_z, high_z = max(low_z, floor), min(high_z, floor + channel.depth_um)
    half = view.image_um[1] / 2.0
    low_y = max(view.middle_y_um - half, -channel.width_um / 2.0)
    high_y = min(view.middle_y_um + half, channel.width_um / 2.0)
    if low_z >= high_z or low_y >= high_y:
        nothing = np.empty((3, 0))
        return _tracks(nothing, nothing, nothing, np.empty((2, 0)), view), np.empty(0)
    share = qmc.Sobol(6, rng=0).random(typical).T
    share = np.clip(share, 1e-9, 1.0 - 1e-9)
    y, z = low_y + share[0] * (high_y - low_y), low_z + share[1] * (high_z - low_z)
    speed = np.abs(theta[VELOCITY]) * flow_of(section, theta).at(y, z - floor)
    length, lasts = view.image_um[0], frames / view.frame_rate_hz
    swept = length + speed * lasts
    count = view.particles_per_um3 * (high_y - low_y) * (high_z - low_z) / typical * swept
    start = share[2] * swept - speed * lasts  # where along x it is when the slice begins
    with np.errstate(divide="ignore", invalid="ignore"):
        enters = np.where(start < 0, -start / speed, 0.0)
        leaves = np.minimum(np.where(speed > 0, (length - start) / speed, np.inf), lasts)
    seen = np.maximum(leaves - enters, 0.0)
    detections = view.found * seen * view.frame_rate_hz
    middle_x = start + speed * (enters + leaves) / 2.0 - length / 2.0
    inside = flow_of(section, theta).at(y, z - floor) > 0
    kept = np.flatnonzero(inside & (detections >= view.min_length))
    sigma = view.localisation.at(z[kept] / view.depth_factor - focus_um)
    sigma[2] *= view.depth_factor
    off = norm.ppf(share[3:, kept]) * sigma / np.sqrt(detections[kept])
    places = np.stack([middle_x, y + centre, z])[:, kept] + off
    velocity = np.zeros((3, kept.size))
    velocity[0] = np.sign(theta[VELOCITY]) * speed[kept]
    return _tracks(places, velocity, sigma, np.stack([detections, seen])[:, kept], view), count[kept]


def _tracks(
    places: FloatArray, velocity: FloatArray, sigma: FloatArray, lasting: FloatArray, view: View
) -> TrackVelocities:
    """Tracks of `lasting` (2, M): detections and seconds."""
    detections, seen = lasting
    interval = seen / np.maximum(detections - 1.0, 1.0)
    known = information_about_velocity(detections, interval, sigma, view.diffusion_um2_s)
    spread = np.broadcast_to(view.diffusion_um2_s * seen / 3.0, places.shape).copy()
    return TrackVelocities(
        np.arange(detections.size), seen / 2.0, seen, np.round(detections).astype(np.int64), places,
        sigma / np.sqrt(np.maximum(detections, 1.0)), spread, velocity, 1.0 / np.sqrt(known),
    )  # fmt: skip


def tracks_of(
    view: View, section: Section, theta: FloatArray, slices: Slices
) -> list[tuple[TrackVelocities, FloatArray]]:
    """The same for all slices; typical tracks are shared out among them."""
    typical = 2 ** max(round(np.log2(8 * TYPICAL / len(slices.focus_um))), 6)
    return [
        tracks_of_slice(view, section, theta, focus, frames, min(typical, 2 * TYPICAL))
        for focus, frames in zip(slices.focus_um, slices.frames, strict=True)
    ]
