"""Detections of particles that flow through a straight channel, with what a microscope does to them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tracking.physics.channel.model import axes_of, flow_of, section_of
from tracking.physics.channel.parameters import PARAMETERS, VELOCITY
from tracking.physics.sections.shapes import Rectangle, Section
from tracking.physics.tracks.velocities import TrackVelocities, track_velocities


@dataclass
class Channel:
    """A channel and the microscope over it; lengths in um. The image's middle lies over x = y = 0."""

    section: Section = field(default_factory=lambda: Rectangle(400.0, 100.0))
    velocity_um_s: float = 100.0
    center_y_um: float = 0.0
    floor_um: float = 0.0
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    slip_um: float = 0.0
    flow_index: float = 1.0
    image_um: tuple[float, float] = (500.0, 300.0)
    heights_um: tuple[float, float] = (-np.inf, np.inf)
    frame_rate_hz: float = 20.0
    longest: int = 60
    sigma_um: tuple[float, float, float] = (0.15, 0.15, 1.5)
    diffusion_um2_s: float = 0.2
    stuck: float = 0.0
    wrong: float = 0.0
    flows_through: Section | None = None
    """The section that the liquid really has, in the same box; None: the one above."""

    @property
    def theta(self) -> np.ndarray:
        values = {"width_um": self.section.width_um, "depth_um": self.section.depth_um}
        return np.array([values.get(name, getattr(self, name, 0.0)) for name in PARAMETERS], float)


def simulate(
    channel: Channel, tracks: int, seed: int, duration_s: float = 60.0, faster=None
) -> dict[str, np.ndarray]:
    """Detections of particles in the image, as keywords of `track_velocities`; `faster(t)` scales the flow."""
    rng = np.random.default_rng(seed)
    theta, axes = channel.theta, axes_of(channel.theta)
    section = section_of(channel.section, theta) if channel.flows_through is None else channel.flows_through
    profile = flow_of(section, theta)
    origin = np.array([0.0, channel.center_y_um, channel.floor_um])
    half_x, half_y = channel.image_um[0] / 2, channel.image_um[1] / 2
    places = np.empty((3, 0))
    while places.shape[1] < tracks:
        local = np.stack(
            [
                rng.uniform(-1.2 * half_x, 1.2 * half_x, 4 * tracks),
                rng.uniform(-section.width_um / 2, section.width_um / 2, 4 * tracks),
                rng.uniform(0, section.depth_um, 4 * tracks),
            ]
        )
        local = local[:, profile.at(local[1], local[2]) > 0]
        places = np.hstack([places, local[:, seen(channel, axes @ local + origin[:, None])]])
    local = places[:, :tracks]
    stuck = rng.random(tracks) < channel.stuck
    wrong = ~stuck & (rng.random(tracks) < channel.wrong)
    astray = rng.normal(0, channel.velocity_um_s, (3, tracks)) * wrong
    begun = rng.uniform(0, duration_s, tracks)
    length = rng.integers(8, channel.longest + 1, tracks)
    alive = np.ones(tracks, bool)
    rows = []
    step = np.sqrt(2 * channel.diffusion_um2_s / channel.frame_rate_hz)
    for frame in range(channel.longest):
        time_s = begun + frame / channel.frame_rate_hz
        if frame:
            speed = theta[VELOCITY] * profile.at(local[1], local[2])
            if faster is not None:
                speed = speed * faster(time_s)
            move = rng.normal(0, step, local.shape)
            move[0] += speed / channel.frame_rate_hz
            moved = local + move * ~stuck + axes.T @ astray / channel.frame_rate_hz
            outside = profile.at(moved[1], moved[2]) <= 0
            moved[1:, outside] = local[1:, outside]
            local = moved
        position = axes @ local + origin[:, None]
        alive &= (frame < length) & seen(channel, position)
        sigma = np.array(channel.sigma_um)[:, None] * rng.uniform(0.7, 1.4, local.shape)
        found = position + rng.normal(size=sigma.shape) * sigma
        rows.append((np.flatnonzero(alive), time_s[alive], found[:, alive], sigma[:, alive]))
    return {
        "track": np.concatenate([row[0] for row in rows]),
        "time_s": np.concatenate([row[1] for row in rows]),
        "position_um": np.hstack([row[2] for row in rows]),
        "sigma_um": np.hstack([row[3] for row in rows]),
    }


def seen(channel: Channel, position: np.ndarray) -> np.ndarray:
    """Which positions (3, N) are in the image and in the depths that are measured."""
    low, high = channel.heights_um
    inside = (np.abs(position[0]) < channel.image_um[0] / 2) & (np.abs(position[1]) < channel.image_um[1] / 2)
    return inside & (position[2] > low) & (position[2] < high)


def velocities(channel: Channel, tracks: int, seed: int, **more) -> TrackVelocities:
    """The tracks' velocities, with the diffusion coefficient known."""
    return track_velocities(
        **simulate(channel, tracks, seed, **more), diffusion_um2_s=channel.diffusion_um2_s
    )
