"""Particles at rest on one or two walls: who is on which, how far apart these are, and where they are in focus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.recalibration.geometry import Linear, Resting
from engines.refine.field import SURFACE_DEGREE, monomials

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEWEST_ON_A_WALL = 3
GAP_PART = 0.2
"""Gap between the heights of particles on two walls, of the depth range: a focal surface bends by less."""
APART_PART = 0.1
"""Difference of their depths, of the depth range, from which two walls tell a depth scale: where each was brought
into focus, the drive alone measured their distance."""


@dataclass(frozen=True, slots=True, eq=False)
class Walls:
    """The wall (B,) of each particle, 0 or 1 from below, and for both: focus and depth (um) of their particles.

    Depths are without the focal surface.
    """

    number: IntArray
    focus_um: FloatArray
    depth_um: FloatArray

    def _of(self, wall: int) -> tuple[float, float, float, int]:
        """Typical focus and depth, the standard error of their sum, and how many particles."""
        mine = self.number == wall
        focus, depth = self.focus_um[mine], self.depth_um[mine]
        height = focus + depth
        spread = 1.4826 * float(np.median(np.abs(height - np.median(height)))) if height.size else np.nan
        return (
            float(np.mean(focus)),
            float(np.median(depth)),
            1.2533 * spread / max(height.size, 1) ** 0.5,
            height.size,
        )

    @property
    def two(self) -> bool:
        """Whether enough particles are on each of two walls."""
        return min((int((self.number == wall).sum()) for wall in (0, 1)), default=0) >= FEWEST_ON_A_WALL

    def distance(self, scale: float) -> float | None:
        """Distance of the walls in focus travel, um; None where there are not two."""
        if not self.two:
            return None
        (low_focus, low, _, _), (high_focus, high, _, _) = self._of(0), self._of(1)
        return high_focus - low_focus + scale * (high - low)

    def scale(self, travel_um: float, depth_range_um: float) -> Linear | None:
        """The depth scale that makes the walls `travel_um` apart; None where they do not tell."""
        if not self.two:
            return None
        (low_focus, low, low_sd, n), (high_focus, high, high_sd, m) = self._of(0), self._of(1)
        apart = high - low
        if abs(apart) < APART_PART * depth_range_um:
            return None
        found = (travel_um - (high_focus - low_focus)) / apart
        sd = float(np.hypot(low_sd, high_sd)) / abs(apart)
        return Linear(np.array([found]), np.array([sd]), ((found - 1) / max(sd, 1e-9)) ** 2, 0.0, n + m)

    def offset(
        self,
        resting: Resting,
        uv: tuple[FloatArray, FloatArray],
        scale: float,
        surface_um: FloatArray,
        wall_focus_um: float,
    ) -> Linear | None:
        """What must be added to depths so that the wall nearest to `wall_focus_um` is in focus there."""
        height = resting.mean(resting.focus_um + scale * resting.zeta_um)
        height = height - monomials(*uv, SURFACE_DEGREE) @ surface_um if height.size else height
        best: FloatArray | None = None
        for wall in np.unique(self.number):
            mine = height[self.number == wall]
            near = best is None or abs(np.median(mine) - wall_focus_um) < abs(np.median(best) - wall_focus_um)
            best = mine if near and mine.size >= FEWEST_ON_A_WALL else best
        if best is None:
            return None
        spread = 1.4826 * float(np.median(np.abs(best - np.median(best))))
        sd = max(1.2533 * spread / best.size**0.5, 1e-9)
        found = wall_focus_um - float(np.median(best))
        return Linear(np.array([found]), np.array([sd]), (found / sd) ** 2, 0.0, best.size)


def by_wall(
    resting: Resting, uv: tuple[FloatArray, FloatArray], surface_um: FloatArray, depth_range_um: float
) -> Walls:
    """Tell particles on two walls apart by the widest gap in their heights; without one all are on wall 0."""
    focus = resting.mean(resting.focus_um)
    depth = resting.mean(resting.zeta_um)
    if depth.size:
        depth = depth - monomials(*uv, SURFACE_DEGREE) @ surface_um
    number = np.zeros(depth.size, np.int64)
    height = np.sort(focus + depth)
    if height.size >= 2 * FEWEST_ON_A_WALL:
        gaps = np.diff(height)[FEWEST_ON_A_WALL - 1 : height.size - FEWEST_ON_A_WALL]
        widest = int(gaps.argmax()) + FEWEST_ON_A_WALL - 1
        if height[widest + 1] - height[widest] > GAP_PART * depth_range_um:
            number = (focus + depth > height[widest]).astype(np.int64)
    return Walls(number, focus, depth)
