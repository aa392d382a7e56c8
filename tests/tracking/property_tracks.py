"""Particles of a known radius, detected frame by frame with errors of known parts."""

from __future__ import annotations

import numpy as np
from trajectory_files import info

from stream.messages import Detections, Properties

RADIUS_UM = (0.1, 0.5)


def measured(
    particles: int = 200, frames: int = 40, *, alike: float = 0.0, seed: int = 0, spacing_um: float = 50.0
) -> tuple[list[Detections], np.ndarray]:
    """Detections of particles at rest, and their radii, um.

    Of the variance of the stated errors the part `alike` is the same in all detections of a particle.
    """
    rng = np.random.default_rng(seed)
    radius = rng.uniform(*RADIUS_UM, particles)
    sigma = 0.02 * rng.uniform(0.5, 2.0, particles)
    bias = rng.normal(0.0, 1.0, particles) * np.sqrt(alike)
    found = []
    for frame in range(frames):
        errors = bias + rng.normal(0.0, 1.0, particles) * np.sqrt(1.0 - alike)
        table = Detections.from_columns(
            info(frame),
            x_um=np.arange(particles) * spacing_um,
            y_um=0.0,
            z_um=0.0,
            sigma_x_um=0.1,
            sigma_y_um=0.1,
            sigma_z_um=0.1,
        ).table
        sizes = Properties(("radius_um",), (radius + sigma * errors)[None], sigma[None])
        found.append(Detections(info(frame), table, sizes))
    return found, radius
