"""The velocities of the trajectories of a file."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from stream.errors import ConfigurationError
from tracking.physics.tracks.velocities import MIN_LENGTH, TrackVelocities, track_velocities
from tracking.trajectories.file import Trajectories
from tracking.trajectories.heights import factor_of, heights_um

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def detections_of(trajectories: Trajectories) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """Track and time, s, of N detections, their positions (3, N) x, y and absolute height, um, and standard errors.

    In a volume each detection has the time of its slices. Raises `ConfigurationError` without depths.
    """
    height = heights_um(trajectories)
    if not np.isfinite(height).any():
        raise ConfigurationError("these trajectories have no depth, which the flow needs; track in 3D")
    time_s = trajectories.time_s + np.nan_to_num(trajectories.time_offset_s)
    sigma_z = factor_of(trajectories.attributes) * trajectories.sigma_z_um
    position = np.stack([trajectories.x_um, trajectories.y_um, height])
    sigma = np.stack([trajectories.sigma_x_um, trajectories.sigma_y_um, sigma_z])
    return trajectories.track, time_s, position, sigma


def velocities_of(
    trajectories: Trajectories,
    diffusion_um2_s: float | None = None,
    *,
    min_length: int = MIN_LENGTH,
    longest_s: float = math.inf,
) -> TrackVelocities:
    """One velocity for each trajectory that counts, over the absolute height; see `track_velocities`.

    In a volume each detection has the time of its slices. Raises `ConfigurationError` without depths.
    """
    track, time_s, position, sigma = detections_of(trajectories)
    return track_velocities(
        track,
        time_s,
        position,
        sigma,
        diffusion_um2_s,
        min_length=min_length,
        longest_s=longest_s,
    )
