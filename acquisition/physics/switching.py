"""Switching motion: particles that are driven along a straight line for a while, and only diffuse in between.

As viruses in the Particle Tracking Challenge (Chenouard et al. 2014): both states last for exponentially
distributed times; a new direction is drawn, uniformly over the sphere, whenever a particle is driven again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SwitchingModel:
    """`speed_um_s` of a driven particle, and how often per second a resting one starts and a driven one stops."""

    speed_um_s: float = 0.0
    starts_per_s: float = 0.0
    stops_per_s: float = 0.0

    @property
    def driven_part(self) -> float:
        """Part of the time in which a particle is driven."""
        total = self.starts_per_s + self.stops_per_s
        return self.starts_per_s / total if total > 0 else float(self.speed_um_s > 0)


class SwitchingMotion:
    """The states of N particles. Not thread-safe."""

    def __init__(self, model: SwitchingModel, count: int, rng: np.random.Generator) -> None:
        self.model = model
        self._rng = rng
        self.driven = rng.random(count) < model.driven_part
        self.direction = _directions(count, rng)

    def velocity_um_s(self) -> FloatArray:
        """Velocity (3, N) by which the particles are driven now: x, y, z."""
        velocity: FloatArray = self.model.speed_um_s * self.driven * self.direction
        return velocity

    def advance(self, step_s: float) -> FloatArray:
        """Move on by a step; returns the displacement (3, N), um.

        A state holds for a whole step, so steps must be short against the times between two switches.
        """
        moved = step_s * self.velocity_um_s()
        chance = self._rng.random(self.driven.size)
        starts = ~self.driven & (chance < -math.expm1(-self.model.starts_per_s * step_s))
        stops = self.driven & (chance < -math.expm1(-self.model.stops_per_s * step_s))
        self.direction[:, starts] = _directions(int(np.count_nonzero(starts)), self._rng)
        self.driven = (self.driven | starts) & ~stops
        return moved


def _directions(count: int, rng: np.random.Generator) -> FloatArray:
    """Unit vectors (3, N), uniform over the sphere."""
    direction: FloatArray = rng.normal(size=(3, count))
    direction /= np.maximum(np.linalg.norm(direction, axis=0), 1e-12)
    return direction
