"""Detections of a planned experiment: particles flow into the image and out of it while each slice is taken."""

from __future__ import annotations

import numpy as np

from tracking.physics.channel.model import flow_of
from tracking.physics.channel.parameters import CENTER, FLOOR, VELOCITY
from tracking.physics.planning.precision import Plan
from tracking.physics.planning.view import View
from tracking.physics.tracks.velocities import TrackVelocities, track_velocities


def planned_detections(plan: Plan, seed: int) -> dict[str, np.ndarray]:
    """Keywords of `track_velocities`, from particles that move by small steps through the whole depth."""
    rng = np.random.default_rng(seed)
    parts, first = [], 0
    for focus, frames in zip(plan.slices.focus_um, plan.slices.frames, strict=True):
        part = one_slice(plan, focus, round(frames), rng)
        part["track"] += first
        first = int(part["track"].max(initial=first)) + 1
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}


def one_slice(plan: Plan, focus_um: float, frames: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One slice. A particle that comes back into view is another track."""
    view, theta = plan.view, plan.theta
    section, profile = plan.section, flow_of(plan.section, plan.theta)
    dt, length = 1.0 / view.frame_rate_hz, view.image_um[0]
    fastest = np.abs(theta[VELOCITY]) * profile.at(np.array([0.0]), np.array([section.depth_um / 2]))[0]
    margin = 4.0 * np.sqrt(2 * view.diffusion_um2_s * frames * dt)
    low = max(view.heights_um(focus_um)[0] - theta[FLOOR] - margin, 0.0)
    high = min(view.heights_um(focus_um)[1] - theta[FLOOR] + margin, section.depth_um)
    upstream = 1.2 * fastest * frames * dt + margin
    number = rng.poisson(
        view.particles_per_um3 * (length + upstream + margin) * section.width_um * (high - low)
    )
    local = np.stack(
        [
            rng.uniform(-length / 2 - upstream, length / 2 + margin, number),
            rng.uniform(-section.width_um / 2, section.width_um / 2, number),
            rng.uniform(low, high, number),
        ]
    )
    step = np.sqrt(2 * view.diffusion_um2_s * dt)
    name, visits, was_in = np.arange(number), np.zeros(number, int), np.zeros(number, bool)
    rows = []
    for frame in range(frames):
        height = local[2] + theta[FLOOR]
        seen = in_view(view, local, height, focus_um)
        visits += seen & ~was_in
        was_in = seen
        shown = np.flatnonzero(seen & (rng.random(number) < view.found))
        sigma = view.localisation.at(height[shown] / view.depth_factor - focus_um)
        sigma[2] *= view.depth_factor
        place = np.stack([local[0], local[1] + theta[CENTER], height])[:, shown]
        found = place + sigma * rng.normal(size=sigma.shape)
        rows.append((name[shown] + number * visits[shown], np.full(shown.size, frame * dt), found, sigma))
        moved = local + step * rng.normal(size=local.shape)
        moved[0] += theta[VELOCITY] * profile.at(local[1], local[2]) * dt
        inside = profile.at(moved[1], moved[2]) > 0
        local[0] = moved[0]
        local[1:, inside] = moved[1:, inside]
    return {
        "track": np.concatenate([row[0] for row in rows]),
        "time_s": np.concatenate([row[1] for row in rows]),
        "position_um": np.hstack([row[2] for row in rows]),
        "sigma_um": np.hstack([row[3] for row in rows]),
    }


def in_view(view: View, local: np.ndarray, height: np.ndarray, focus_um: float) -> np.ndarray:
    low, high = view.heights_um(focus_um)
    across = np.abs(local[1] - view.middle_y_um) < view.image_um[1] / 2
    return (np.abs(local[0]) < view.image_um[0] / 2) & across & (height > low) & (height < high)


def planned_velocities(plan: Plan, seed: int) -> TrackVelocities:
    return track_velocities(**planned_detections(plan, seed), diffusion_um2_s=plan.view.diffusion_um2_s)
