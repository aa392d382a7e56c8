"""Triangles that fill a section, finer around corners that stand out into the flow."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay
from skfem import MeshTri

from stream.errors import ConfigurationError
from tracking.physics.sections.shapes import Section, signed_area

FloatArray = npt.NDArray[np.float64]

CELLS_ACROSS = 24
"""Triangles on the hydraulic diameter, 4 area / perimeter."""
MOST_TRIANGLES = 8000
"""Of wide, shallow sections, whose triangles are then larger: a solution stays below 0.2 s."""
CORNER_ROUNDS = 3
"""Times that triangles around re-entrant corners are halved; the velocity near one rises as r^(2/3)."""
CORNER_REACH = 2.0
"""Distance from these corners, in sides of the triangles, within which they are halved first."""
WALL_ROUNDS, WALL_REACH = 2, 0.5
"""The same at the walls of a region."""
EDGE_ROUNDS, EDGE_REACH = 4, 0.8
"""The same at the corners of a region that stand out into the flow."""
ASPECT_STEP = 0.25
"""Sections whose width over depth differs by less than this power of two share a mesh, stretched to their size, so
that the solution varies smoothly with the size."""


def mesh_of(section: Section) -> Any:
    """A `skfem.MeshTri` of the section, um. Raises `ConfigurationError` if the outline is too intricate."""
    steps = round(np.log2(section.width_um / section.depth_um) / ASPECT_STEP)
    mesh = _mesh(section.resized(2.0 ** (steps * ASPECT_STEP), 1.0))
    low = mesh.p.min(axis=1)
    size = np.ptp(mesh.p, axis=1)
    outline = section.outline_um()
    target_low, target_size = outline.min(axis=0), np.ptp(outline, axis=0)
    stretched = (mesh.p - low[:, None]) * (target_size / size)[:, None] + target_low[:, None]
    return MeshTri(stretched, mesh.t)


@lru_cache(maxsize=32)
def _mesh(section: Section) -> Any:
    corners = section.outline_um()
    area = abs(signed_area(corners))
    side = 4.0 * area / section.perimeter_um / CELLS_ACROSS
    return filled(corners, max(side, np.sqrt(area / MOST_TRIANGLES * 4.0 / np.sqrt(3.0))))


def filled(corners: FloatArray, side: float, reach: float = CORNER_REACH) -> Any:
    """A `skfem.MeshTri` of a polygon (C, 2) with triangles of about this side, smaller around re-entrant corners
    to a distance of `reach` sides.

    Raises `ConfigurationError` if the outline is too intricate.
    """
    area = abs(signed_area(corners))
    for finer in (1.0, 0.5, 0.25):
        points, triangles = _triangles(corners, side * finer)
        mesh = MeshTri(points.T.copy(), triangles.T.copy())
        p = mesh.p[:, mesh.t]
        covered = np.abs(_cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])).sum() / 2.0
        if abs(covered / area - 1.0) < 1e-9:
            return _refined_at_corners(mesh, corners, side * finer, reach)
    raise ConfigurationError(
        "the section's outline has details too fine for its size; leave out corners that are close together"
    )


def _triangles(corners: FloatArray, side: float) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Delaunay triangles of points along the outline and on a hexagonal lattice inside."""
    after = np.roll(corners, -1, axis=0)
    rim = []
    for a, b in zip(corners, after, strict=True):
        count = max(int(np.ceil(np.linalg.norm(b - a) / side)), 1)
        rim.append(a + (b - a) * (np.arange(count) / count)[:, None])
    low, high = corners.min(axis=0), corners.max(axis=0)
    rows = np.arange(low[1], high[1], side * np.sqrt(3.0) / 2.0)
    columns = np.arange(low[0] - side, high[0] + side, side)
    lattice = np.stack(np.meshgrid(columns, rows), axis=-1)
    lattice[1::2, :, 0] += side / 2.0
    inner = lattice.reshape(-1, 2)
    inner = inner[inside(corners, inner)]
    inner = inner[distance_from(corners, inner) > 0.6 * side]
    points = np.concatenate([*rim, inner])
    triangles = Delaunay(points).simplices.astype(np.int64)
    p = points[triangles]
    area = _cross((p[:, 1] - p[:, 0]).T, (p[:, 2] - p[:, 0]).T)
    kept = inside(corners, p.mean(axis=1)) & (np.abs(area) > 1e-9 * side**2)
    return points, triangles[kept]


def _refined_at_corners(mesh: Any, corners: FloatArray, side: float, reach: float) -> Any:
    before, after = np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0)
    reentrant = corners[_cross((corners - before).T, (after - corners).T) < -1e-9 * side**2]
    for step in range(CORNER_ROUNDS if len(reentrant) else 0):
        middle = mesh.p[:, mesh.t].mean(axis=1).T
        apart = np.linalg.norm(middle[:, None] - reentrant[None], axis=2).min(axis=1)
        mesh = mesh.refined(np.flatnonzero(apart < reach * side / 2.0**step))
    return mesh


def divided(mesh: Any, side: float, walls: list[FloatArray], corners: FloatArray) -> Any:
    """A mesh with triangles of about this side, smaller at walls (2, 2 each) and around re-entrant corners (R, 2).

    Where two walls meet the shear grows by r log r, and in a gap it changes over less than its width: most of the
    error of the shear was within 5 % of the depth from the walls when all triangles were alike."""
    for step in range(max(WALL_ROUNDS, EDGE_ROUNDS)):
        middle = mesh.p[:, mesh.t].mean(axis=1).T
        near = np.zeros(len(middle), np.bool_)
        if step < WALL_ROUNDS:
            apart = np.min([distance_from(wall, middle) for wall in walls], axis=0)
            near |= apart < WALL_REACH * side / 2.0**step
        if len(corners):
            near |= (
                np.linalg.norm(middle[:, None] - corners, axis=2).min(axis=1) < EDGE_REACH * side / 2.0**step
            )
        mesh = mesh.refined(np.flatnonzero(near))
    return mesh


def shares_of_corners(mesh: Any, found: npt.NDArray[np.int_], x: FloatArray, y: FloatArray) -> FloatArray:
    """Barycentric coordinates (3, N) of points (N,) in the triangles `found`."""
    corner = mesh.p[:, mesh.t[:, found]]
    first, e1, e2 = corner[:, 0], corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    apart = np.stack([x, y]) - first
    area = _cross(e1, e2)
    b, c = _cross(apart, e2) / area, _cross(e1, apart) / area
    return np.stack([1.0 - b - c, b, c])


def inside(corners: FloatArray, points: FloatArray) -> npt.NDArray[np.bool_]:
    """Which points (N, 2) are inside a polygon (C, 2): even-odd rule."""
    result = np.zeros(len(points), np.bool_)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        rising = (a[1] <= points[:, 1]) != (b[1] <= points[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = a[0] + (points[:, 1] - a[1]) * (b[0] - a[0]) / (b[1] - a[1])
        result ^= rising & (points[:, 0] < crossing)
    return result


def distance_from(corners: FloatArray, points: FloatArray) -> FloatArray:
    """Distance (N,) of each point from the outline."""
    nearest = np.full(len(points), np.inf)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = b - a
        share = np.clip((points - a) @ along / (along @ along), 0.0, 1.0)
        nearest = np.minimum(nearest, np.linalg.norm(points - a - share[:, None] * along, axis=1))
    return nearest


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    product: FloatArray = a[0] * b[1] - a[1] * b[0]
    return product
