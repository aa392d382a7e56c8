"""Detections of particles that flow through a straight channel, with what a microscope does to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from stream.messages import FrameInfo, Tracks
from tracking.physics.channel.model import axes_of, flow_of
from tracking.physics.channel.parameters import PARAMETERS, VELOCITY
from tracking.physics.sections.profile import Profile
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

    def liquid(self) -> Profile:
        """The flow that the liquid really has."""
        return flow_of(self.flows_through or self.section, self.theta)


def anywhere(channel: Channel, count: int, rng: np.random.Generator, beyond: float = 0.2) -> np.ndarray:
    """Places (3, count) along the channel and in its section, uniform over what is seen and a margin along x."""
    section, profile, axes = channel.section, channel.liquid(), axes_of(channel.theta)
    origin = np.array([0.0, channel.center_y_um, channel.floor_um])
    half_um = (0.5 + beyond) * channel.image_um[0]
    places = np.empty((3, 0))
    while places.shape[1] < count:
        local = np.stack(
            [
                rng.uniform(-half_um, half_um, 4 * count),
                rng.uniform(-section.width_um / 2, section.width_um / 2, 4 * count),
                rng.uniform(0, section.depth_um, 4 * count),
            ]
        )
        local = local[:, profile.at(local[1], local[2]) > 0]
        places = np.hstack([places, local[:, seen(channel, axes @ local + origin[:, None])]])
    return places[:, :count]


def run_of(channel: Channel, alive: int, seconds: float, seed: int) -> Iterator[Tracks]:
    """The messages of a run with so many tracks alive: who leaves the image or has been seen `longest` frames
    ends."""
    rng = np.random.default_rng(seed)
    axes, profile = axes_of(channel.theta), channel.liquid()
    origin = np.array([0.0, channel.center_y_um, channel.floor_um])[:, None]
    local = anywhere(channel, alive, rng, 0.0)
    name, age = np.arange(alive), rng.integers(0, channel.longest, alive)
    fresh = alive
    step = np.sqrt(2 * channel.diffusion_um2_s / channel.frame_rate_hz)
    for frame in range(int(seconds * channel.frame_rate_hz)):
        position = axes @ local + origin
        over = ~seen(channel, position) | (age >= channel.longest)
        if over.any():
            local[:, over] = anywhere(channel, int(over.sum()), rng, 0.0)
            name[over] = fresh + np.arange(int(over.sum()))
            age[over] = 0
            fresh += int(over.sum())
            position = axes @ local + origin
        sigma = np.broadcast_to(np.array(channel.sigma_um)[:, None], local.shape)
        x, y, z = position + rng.normal(size=sigma.shape) * sigma
        info = FrameInfo("run", frame, frame, frame / channel.frame_rate_hz, 0, 0.0, focus_um=0.0)
        yield Tracks.from_columns(
            info, track=name, x_um=x, y_um=y, z_um=z, sigma_x_um=sigma[0], sigma_y_um=sigma[1],
            sigma_z_um=sigma[2], age_frames=age,
        )  # fmt: skip
        move = rng.normal(0, step, local.shape)
        move[0] += channel.velocity_um_s * profile.at(local[1], local[2]) / channel.frame_rate_hz
        moved = local + move
        outside = profile.at(moved[1], moved[2]) <= 0
        moved[1:, outside] = local[1:, outside]
        local, age = moved, age + 1


def simulate(
    channel: Channel, tracks: int, seed: int, duration_s: float = 60.0, faster=None
) -> dict[str, np.ndarray]:
    """Detections of particles in the image, as keywords of `track_velocities`; `faster(t)` scales the flow."""
    rng = np.random.default_rng(seed)
    theta, axes = channel.theta, axes_of(channel.theta)
    profile = channel.liquid()
    origin = np.array([0.0, channel.center_y_um, channel.floor_um])
    local = anywhere(channel, tracks, rng)
    stuck = rng.random(tracks) < channel.stuck
    wrong = ~stuck & (rng.random(tracks) < channel.wrong)
    astray = rng.normal(0, channel.velocity_um_s, (3, tracks)) * wrong
    begun = rng.integers(0, int(duration_s * channel.frame_rate_hz), tracks) / channel.frame_rate_hz
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
