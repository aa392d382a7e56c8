"""Detections of particles that flow through a region, with what a microscope does to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracking.physics.region.geometry import Region, region_of
from tracking.physics.region.stokes import Domain

DEPTH_UM = 100.0
BEND = region_of(
    [(0, 0), (200, 0), (200, -200), (400, -200), (400, 200), (0, 200)],
    {"in": [(0, 0), (0, 200)], "out": [(200, -200), (400, -200)]},
    DEPTH_UM,
)
"""A bend of a channel 200 um wide."""


@dataclass(frozen=True, eq=False)
class Liquid:
    """A flow through a domain, from the coefficients of its velocity (3, K), um/s."""

    domain: Domain
    velocity: np.ndarray
    inflow_ul_s: float

    def at(self, position_um: np.ndarray) -> np.ndarray:
        """Velocity (3, N) at positions (3, N); 0 outside."""
        matrix, _ = self.domain.interpolation(position_um)
        return (matrix @ self.velocity.T).T


def anywhere(region: Region, count: int, rng: np.random.Generator) -> np.ndarray:
    """Places (3, count), uniform over the region."""
    corners = region.outline_um
    low = np.array([*corners.min(axis=0), region.floor_um])
    size = np.array([*np.ptp(corners, axis=0), region.depth_um])
    places = np.empty((3, 0))
    while places.shape[1] < count:
        more = low[:, None] + size[:, None] * rng.random((3, 4 * count))
        places = np.hstack([places, more[:, region.holds(more, np.zeros_like(more))]])
    return places[:, :count]


def detections(
    liquid: Liquid,
    seen: Region,
    tracks: int,
    seed: int,
    *,
    frame_rate_hz: float = 20.0,
    longest: int = 60,
    sigma_um: tuple[float, float, float] = (0.15, 0.15, 1.5),
    diffusion_um2_s: float = 0.2,
    stuck: float = 0.02,
    wrong: float = 0.02,
    substeps: int = 4,
) -> dict[str, np.ndarray]:
    """Detections of particles while they are in what is seen, as keywords of `pieces_of`."""
    rng = np.random.default_rng(seed)
    place = anywhere(seen, tracks, rng)
    still = rng.random(tracks) < stuck
    astray = rng.normal(0, 100.0, (3, tracks)) * (~still & (rng.random(tracks) < wrong))
    length = rng.integers(8, longest + 1, tracks)
    alive = np.ones(tracks, bool)
    step_s = 1.0 / frame_rate_hz / substeps
    rows = []
    for frame in range(longest):
        alive &= (frame < length) & seen.holds(place, np.zeros_like(place))
        sigma = np.array(sigma_um)[:, None] * rng.uniform(0.7, 1.4, place.shape)
        found = place + astray * frame / frame_rate_hz + rng.normal(size=place.shape) * sigma
        rows.append((np.flatnonzero(alive), np.full(alive.sum(), frame / frame_rate_hz),
                     found[:, alive], sigma[:, alive]))  # fmt: skip
        for _ in range(substeps):
            middle = place + liquid.at(place) * step_s / 2.0
            move = liquid.at(middle) * step_s
            move += rng.normal(0, np.sqrt(2 * diffusion_um2_s * step_s), place.shape)
            moved = place + move * (alive & ~still)
            held = liquid.domain.interpolation(moved)[1]  # a particle that would enter a wall stays
            place = np.where(held, moved, place)
    return {
        "track": np.concatenate([row[0] for row in rows]),
        "time_s": np.concatenate([row[1] for row in rows]),
        "position_um": np.hstack([row[2] for row in rows]),
        "sigma_um": np.hstack([row[3] for row in rows]),
    }
