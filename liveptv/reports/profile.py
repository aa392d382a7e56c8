"""The measured velocity profile, and the laminar flow expected in the channel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from acquisition.physics.channel_flow import channel_velocity_um_s, max_velocity_um_s
from liveptv.config import ChannelSettings
from liveptv.flow_fit.run_settings import channel_of, steady_flow_ul_s
from tracking.analysis.velocity import TrackSummary, VelocityProfile, per_track_summary, velocity_profile
from tracking.trajectories.file import Trajectories
from tracking.trajectories.heights import factor_of, heights_um

FloatArray = npt.NDArray[np.float64]

# Over the height: 20 um each in a channel of 300 um. Next to a wall velocity changes by a quarter of its maximum in
# a bin, which does not bias the comparison: the theory is averaged over the same tracks.
BINS = 15
# Detections of a trajectory from which its velocity counts. The error of a fitted velocity falls as length^-1.5,
# and ghost particles make short tracks; a larger number prefers slow particles, which stay longer in the image.
MIN_LENGTH = 10
MIN_TRACKS = (
    5  # in a bin that is compared with the laminar flow; with fewer its standard error is itself uncertain
)


@dataclass(frozen=True, slots=True)
class Theory:
    """Velocity (um/s) along the channel over height (um), averaged across the image."""

    height_um: FloatArray
    velocity_um_s: FloatArray
    max_um_s: float


@dataclass(frozen=True, slots=True)
class FlowProfile:
    """Measured profile over height (3D) or across the image (2D), and the theory where it is known.

    `left_out` is the number of outlying tracks in their bins. `deviation` is the largest difference between a
    bin's mean and the theory averaged over the same tracks, relative to the theory's maximum, and
    `deviation_rms` the root mean square, both over bins with at least five tracks; NaN without a theory.
    """

    over: str
    tracks: TrackSummary
    position_um: FloatArray
    measured: VelocityProfile
    left_out: int
    theory: Theory | None
    deviation: float
    deviation_rms: float


def flow_profile(trajectories: Trajectories) -> FlowProfile:
    """Compute the profile; channel and flow come from the file's attributes."""
    attributes = trajectories.attributes
    depth = bool(np.isfinite(trajectories.z_um).any())
    third_um = heights_um(trajectories) if depth else np.zeros(len(trajectories))
    known = np.isfinite(third_um)
    tracks = per_track_summary(
        trajectories.track[known],
        trajectories.time_s[known],
        trajectories.x_um[known],
        trajectories.y_um[known],
        third_um[known],
        MIN_LENGTH,
    )
    position_um = tracks.z_um if depth else tracks.y_um
    channel = channel_of(attributes) if depth else None
    bins: int | FloatArray = BINS
    if channel is not None:
        floor_um = floor_height_um(channel, attributes)
        bins = np.linspace(floor_um, floor_um + channel.depth_um, BINS + 1)
    measured = velocity_profile(position_um, tracks.velocity_um_s[0], tracks.sigma_um_s[0], bins)
    flow_ul_s = steady_flow_ul_s(trajectories)
    theory, deviation, rms = None, math.nan, math.nan
    if channel is not None and flow_ul_s is not None:
        center_um = channel_center_um(channel, attributes)
        theory = laminar_flow(channel, flow_ul_s, attributes)
        expected = channel_velocity_um_s(
            tracks.y_um - center_um,
            position_um - floor_height_um(channel, attributes),
            channel.width_um,
            channel.depth_um,
            flow_ul_s,
        )
        use = measured.used
        same = velocity_profile(position_um[use], expected[use], tracks.sigma_um_s[0, use], bins, clip=None)
        if (measured.tracks >= MIN_TRACKS).any() and theory.max_um_s != 0:
            enough = measured.tracks >= MIN_TRACKS
            off = (measured.velocity_um_s - same.velocity_um_s)[enough] / abs(theory.max_um_s)
            deviation, rms = float(np.abs(off).max()), float(np.sqrt(np.mean(off**2)))
    over = "height" if depth else "y"
    left_out = int(position_um.size - measured.used.sum())
    return FlowProfile(over, tracks, position_um, measured, left_out, theory, deviation, rms)


def floor_height_um(channel: ChannelSettings, attributes: dict[str, Any]) -> float:
    """Absolute height of the channel's floor, whose focus position the settings give, um."""
    return factor_of(attributes) * channel.floor_um


def channel_center_um(channel: ChannelSettings, attributes: dict[str, Any]) -> float:
    """y of the middle of the channel, um; the middle of the image unless the channel names it."""
    if channel.center_y_um is not None:
        return channel.center_y_um
    return _image_height_um(attributes) / 2


def _image_height_um(attributes: dict[str, Any]) -> float:
    rows = attributes.get("image_shape", [1, 1])[0]
    return float((rows - 1) * attributes.get("pixel_size_um", 1.0))


def laminar_flow(channel: ChannelSettings, flow_ul_s: float, attributes: dict[str, Any]) -> Theory:
    """The laminar flow in the channel at a set-point, for an image of `image_shape` and `pixel_size_um`."""
    height_um: FloatArray = np.linspace(0.0, channel.depth_um, 201)
    half_um = _image_height_um(attributes) / 2
    offset_um = half_um - channel_center_um(channel, attributes)
    across_um = np.linspace(-half_um, half_um, 41) + offset_um
    size = (channel.width_um, channel.depth_um, flow_ul_s)
    velocity = channel_velocity_um_s(across_um[:, None], height_um[None, :], *size).mean(axis=0)
    return Theory(height_um + floor_height_um(channel, attributes), velocity, max_velocity_um_s(*size))
