"""A region of constant depth: its walls from above, and the openings through which liquid flows in and out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.errors import ConfigurationError
from tracking.physics.sections.mesh import distance_from, inside
from tracking.physics.sections.shapes import Polygon, polygon, signed_area

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

OPENING_TOLERANCE = 1e-6
"""Distance of an opening's end from a corner, over the size of the region: rounding of decimal numbers."""


@dataclass(frozen=True)
class Region:
    """A polygon in x and y, from the floor up to the ceiling `depth_um` higher.

    `corners_um` (C) are in counter-clockwise order; `openings` maps names to the sides: side i goes from corner i
    to the one after it. Make it by `region_of`."""

    corners_um: tuple[tuple[float, float], ...]
    openings: tuple[tuple[str, int], ...]
    floor_um: float
    depth_um: float

    @property
    def outline_um(self) -> FloatArray:
        """Corners (C, 2), counter-clockwise."""
        return np.array(self.corners_um)

    def side_um(self, side: int) -> tuple[FloatArray, FloatArray]:
        """Both ends (2,) of a side."""
        corners = self.outline_um
        return corners[side], corners[(side + 1) % len(corners)]

    @property
    def walls(self) -> tuple[int, ...]:
        """The sides that are walls."""
        open_ones = {side for _, side in self.openings}
        return tuple(side for side in range(len(self.corners_um)) if side not in open_ones)

    @cached_property
    def reentrant_um(self) -> FloatArray:
        """Corners (R, 2) that stand out into the flow."""
        corners = self.outline_um
        before, after = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
        turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
        sharp: FloatArray = corners[
            turn < -1e-9 * np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        ]
        return sharp

    @cached_property
    def _polygon(self) -> Polygon:
        return polygon(self.outline_um)

    def spans_um(self, position_um: FloatArray) -> FloatArray:
        """From where to where the region reaches along x, y and z through each position (3, N): (3, 2, N)."""
        corners = self.outline_um
        origin = np.array([np.mean([corners[:, 0].min(), corners[:, 0].max()]), corners[:, 1].min()])
        seen = self._polygon.spans_um(position_um[0] - origin[0], position_um[1] - origin[1])
        ends = np.array([self.floor_um, self.floor_um + self.depth_um])
        level = np.broadcast_to(ends[:, None], (2, position_um.shape[1]))
        return np.stack([seen[0] + origin[0], seen[1] + origin[1], level])

    def holds(self, position_um: FloatArray, margin_um: FloatArray) -> BoolArray:
        """Which positions (3, N) are inside the region, or no farther than margins (3, N) beyond a wall.

        Beyond an opening is not inside.
        """
        seen = np.ascontiguousarray(position_um[:2].T)
        within = inside(self.outline_um, seen)
        margin = np.maximum(margin_um[0], margin_um[1])
        to_wall = np.min([distance_from(np.array(self.side_um(s)), seen) for s in self.walls], axis=0)
        to_opening = np.full(len(seen), np.inf)
        for _, side in self.openings:
            to_opening = np.minimum(to_opening, distance_from(np.array(self.side_um(side)), seen))
        within |= (to_wall <= margin) & (to_wall < to_opening)
        above = position_um[2] - self.floor_um
        held: BoolArray = within & (above >= -margin_um[2]) & (above <= self.depth_um + margin_um[2])
        return held


def region_of(
    corners_um: npt.ArrayLike,
    openings: Mapping[str, npt.ArrayLike],
    depth_um: float,
    floor_um: float = 0.0,
) -> Region:
    """A region with these corners (C, 2), x and y, in order around it; openings are the two ends (2, 2) of a side.

    Raises `ConfigurationError` for sides that cross, fewer than two openings, an opening that is not a whole side
    of the polygon or is one already, no wall between two openings, or a depth that is not above 0."""
    if not (math.isfinite(depth_um) and depth_um > 0 and math.isfinite(floor_um)):
        raise ConfigurationError(
            f"the region's depth is {depth_um:g} um and its floor at {floor_um:g} um; "
            "give a depth above 0 and a floor"
        )
    polygon(corners_um)  # refuses crossing sides
    corners = np.asarray(corners_um, np.float64)
    if signed_area(corners) < 0:
        corners = corners[::-1]
    if len(openings) < 2:
        raise ConfigurationError(
            f"the region has {len(openings)} openings; name two or more sides through which liquid flows"
        )
    found: dict[int, str] = {}
    for name, ends in openings.items():
        side = _side_of(corners, name, ends)
        if side in found:
            raise ConfigurationError(
                f"the openings {found[side]!r} and {name!r} are the same side; give each side once"
            )
        found[side] = name
    for side, name in found.items():
        if (after := (side + 1) % len(corners)) in found:
            raise ConfigurationError(
                f"no wall lies between the openings {name!r} and {found[after]!r}; leave a wall between them"
            )
    named = tuple((name, side) for side, name in found.items())
    return Region(tuple((float(x), float(y)) for x, y in corners), named, float(floor_um), float(depth_um))


def _side_of(corners: FloatArray, name: str, ends: npt.ArrayLike) -> int:
    """The side with these ends, in either order."""
    both = np.asarray(ends, np.float64)
    near = OPENING_TOLERANCE * float(np.ptp(corners, axis=0).max())
    if both.shape == (2, 2):
        for side, (a, b) in enumerate(zip(corners, np.roll(corners, -1, axis=0), strict=True)):
            for one in (both, both[::-1]):
                if np.abs(one - np.stack([a, b])).max() <= near:
                    return side
    raise ConfigurationError(
        f"the opening {name!r} is no side of the region; give two corners of the outline that follow each other"
    )


def region_from(table: Mapping[str, Any]) -> Region:
    """A region from a table as in a file: `corners_um`, `depth_um`, `floor_um`, and a table `openings`.

    Raises `ConfigurationError` for an unknown or missing name, or a value that is none of these.
    """
    known = {"corners_um", "openings", "depth_um", "floor_um"}
    if unknown := sorted(set(table) - known):
        raise ConfigurationError(
            f"the region has no setting {unknown[0]!r}; give corners_um, depth_um, floor_um and [openings]"
        )
    if missing := sorted(known - {"floor_um"} - set(table)):
        raise ConfigurationError(f"the region lacks {missing[0]}; give corners_um, depth_um and [openings]")
    if not isinstance(table["openings"], Mapping):
        raise ConfigurationError(
            "openings of the region are not a table; give NAME = [[x, y], [x, y]] in [openings]"
        )
    try:
        corners = np.array(table["corners_um"], np.float64)
        openings = {name: np.array(ends, np.float64) for name, ends in table["openings"].items()}
        depth, floor = float(table["depth_um"]), float(table.get("floor_um", 0.0))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"the region has a value that is no number ({error}); give um") from None
    return region_of(corners, openings, depth, floor)
