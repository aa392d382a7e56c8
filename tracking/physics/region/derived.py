"""What follows from the flow in a region, with standard errors: velocities, flow rates, pressures and wall
shear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre
from skfem.quadrature import get_quadrature

from tracking.physics.channel.derived import Estimate
from tracking.physics.region.fit import RegionFit
from tracking.physics.region.geometry import Region
from tracking.physics.region.inflow import UM3_PER_UL, RegionFlows
from tracking.physics.region.stokes import Domain, StokesFlows
from tracking.physics.sections.mesh import distance_from

FloatArray = npt.NDArray[np.float64]

WALL_STEP = 0.125
"""Pieces of the side walls, over the depth."""
FLOOR_ORDER = 4
"""Order of the quadrature over floor and ceiling: six pieces of each triangle."""
WALL_LEVELS = 6
"""Pieces of the side walls over the depth (Gauss)."""
NEAR_WALL = 1e-4
"""Distance from a side wall, over the depth, at which its shear is taken: the velocity is quadratic there."""
NEAR_CORNER = 0.1
"""Distance from a corner that stands out into the flow, over the depth, within which the maximum shear is not
looked for: at a sharp edge it grows beyond any limit (Moffatt, J. Fluid Mech. 18, 1, 1964)."""


@dataclass(frozen=True, slots=True, eq=False)
class RegionShear:
    """Shear stress, Pa, on W pieces of wall with middles (3, W), um, and areas (W,), um^2, with its standard error.

    `mean` is over all walls, `maximum` not nearer than `NEAR_CORNER` to an edge that stands out into the flow; it
    is at `maximum_at_um` (3,)."""

    place_um: FloatArray
    area_um2: FloatArray
    stress_pa: FloatArray
    standard_error_pa: FloatArray
    mean: Estimate
    maximum: Estimate
    maximum_at_um: FloatArray


def velocity_at(fit: RegionFit, position_um: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Velocity and its standard error, um/s, (3, K) each, at positions (3, K); 0 outside the region."""
    places = np.asarray(position_um, np.float64)

    def velocity(flows: RegionFlows) -> FloatArray:
        matrix, _ = flows.flows.domain.interpolation(places)
        return np.stack([matrix @ flows.flows.velocity[axis] for axis in range(3)])

    return fit.with_error(velocity)


def inflows_ul_s(fit: RegionFit) -> dict[str, Estimate]:
    """Flow rate into the region through each opening, uL/s; below 0 where liquid flows out."""
    return _by_opening(fit, lambda flows: flows.inflow_um2 / UM3_PER_UL)


def pressures_pa(fit: RegionFit, viscosity_pa_s: float) -> dict[str, Estimate]:
    """Mean pressure on each opening less that on the last one, Pa."""

    def pressures(flows: RegionFlows) -> FloatArray:
        means = [_mean_pressure(flows, side) for _, side in flows.flows.domain.region.openings]
        return np.stack([mean - means[-1] for mean in means]) * viscosity_pa_s / flows.flows.domain.unit_um

    return _by_opening(fit, pressures)


def _by_opening(fit: RegionFit, quantity: Callable[[RegionFlows], FloatArray]) -> dict[str, Estimate]:
    values, errors = fit.with_error(quantity)
    names = [name for name, _ in fit.flows.flows.domain.region.openings]
    return {name: Estimate(float(v), float(e)) for name, v, e in zip(names, values, errors, strict=True)}


def _mean_pressure(flows: RegionFlows, side: int) -> FloatArray:
    """Mean pressure (S,) on an opening, in the domain's units: only the constant of the depth has a mean."""
    domain = flows.flows.domain
    start, end = (corner / domain.unit_um for corner in domain.region.side_um(side))
    width = float(np.linalg.norm(end - start))
    nodes = domain.pressure_basis.doflocs.T
    on_it = np.flatnonzero(distance_from(np.stack([start, end]), nodes) < 1e-9 * width)
    place = (nodes[on_it] - start) @ (end - start) / width
    order = np.argsort(place)
    row = on_it[order] * domain.functions
    mean: FloatArray = np.trapezoid(flows.flows.pressure[row], place[order], axis=0) / width
    return mean


def wall_shear(fit: RegionFit, viscosity_pa_s: float) -> RegionShear:
    """Shear stress on floor, ceiling and side walls."""
    walls = wall_pieces(fit.flows.flows.domain)
    vector = shear_rates(fit.flows.flows, walls) @ fit.amplitude
    size = np.linalg.norm(vector, axis=0)
    towards = np.divide(vector, size, out=np.zeros_like(vector), where=size > 0)

    def along(flows: RegionFlows) -> FloatArray:  # |shear| changes as its part along itself
        rates = shear_rates(flows.flows, walls)
        stress: FloatArray = np.einsum("aw,aws->ws", towards, rates) * viscosity_pa_s
        return stress

    stress, error = fit.with_error(along)
    mean, mean_error = fit.with_error(lambda flows: walls.area_um2 @ along(flows) / walls.area_um2.sum())
    region = fit.flows.flows.domain.region
    apart = np.full(stress.size, np.inf)
    for corner in region.reentrant_um:
        apart = np.minimum(apart, np.hypot(*(walls.place_um[:2] - corner[:, None])))
    most = int(np.argmax(np.where(apart >= NEAR_CORNER * region.depth_um, stress, -np.inf)))
    return RegionShear(
        walls.place_um,
        walls.area_um2,
        stress,
        error,
        Estimate(float(mean), float(mean_error)),
        Estimate(float(stress[most]), float(error[most])),
        walls.place_um[:, most],
    )


@dataclass(frozen=True, slots=True, eq=False)
class WallPieces:
    """Middles (3, W), um, areas (W,), um^2, and directions into the liquid (3, W) of pieces of wall."""

    place_um: FloatArray
    area_um2: FloatArray
    inwards: FloatArray


def wall_pieces(domain: Domain) -> WallPieces:
    """Floor and ceiling by the quadrature of the triangles, side walls by lengths and heights."""
    region = domain.region
    points, weight = get_quadrature(domain.velocity_basis.elem, FLOOR_ORDER)
    seen = domain.mesh.mapping().F(points).reshape(2, -1) * domain.unit_um
    area = (np.abs(domain.mesh.mapping().detDF(points)) * weight).ravel() * domain.unit_um**2
    parts = []
    for height, sign in ((region.floor_um, 1.0), (region.floor_um + region.depth_um, -1.0)):
        middle = np.concatenate([seen, np.full((1, area.size), height)])
        parts.append((middle, area, np.array([[0.0], [0.0], [sign]])))
    parts += [_side_pieces(region, side) for side in region.walls]
    return WallPieces(
        np.hstack([middle for middle, _, _ in parts]),
        np.concatenate([size for _, size, _ in parts]),
        np.hstack([np.broadcast_to(inwards, middle.shape) for middle, _, inwards in parts]),
    )


def shear_rates(flows: StokesFlows, walls: WallPieces) -> FloatArray:
    """Slopes (3, W, S) of the velocities away from walls, 1/s per um/s."""
    domain = flows.domain
    level = walls.inwards[2] != 0
    slopes = np.empty((3, level.size, flows.velocity.shape[2]))
    matrix, _ = domain.interpolation(walls.place_um[:, level], 1)
    away = NEAR_WALL * domain.region.depth_um
    side, inwards = walls.place_um[:, ~level], walls.inwards[:, ~level]
    near, twice = (domain.interpolation(side + count * away * inwards)[0] for count in (1.0, 2.0))
    aside = (4.0 * near - twice) / (2.0 * away)  # one-sided, of the second order; 0 at the wall
    for axis in range(3):
        slopes[axis, level] = walls.inwards[2, level, None] * (matrix @ flows.velocity[axis])
        slopes[axis, ~level] = aside @ flows.velocity[axis]
    return slopes


def _side_pieces(region: Region, side: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Middles (3, W) and areas (W,) of pieces of a side wall, and its direction inwards (3, 1)."""
    start, end = region.side_um(side)
    length = float(np.linalg.norm(end - start))
    along = (end - start) / length
    count = int(np.ceil(length / (WALL_STEP * region.depth_um)))
    share = (np.arange(count) + 0.5) / count
    z, weight = legendre.leggauss(WALL_LEVELS)
    seen = start[:, None] + (end - start)[:, None] * share
    height = region.floor_um + region.depth_um * (z + 1.0) / 2.0
    middle = np.concatenate([np.repeat(seen, WALL_LEVELS, axis=1), np.tile(height, count)[None]])
    area = np.tile(weight / 2.0 * region.depth_um * length / count, count)
    return middle, area, np.array([[-along[1]], [along[0]], [0.0]])
