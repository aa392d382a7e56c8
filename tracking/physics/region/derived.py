"""What follows from the flow in a region, with standard errors: velocities, flow rates, pressures and wall
shear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre

from tracking.physics.channel.derived import Estimate
from tracking.physics.region.fit import RegionFit
from tracking.physics.region.geometry import Region
from tracking.physics.region.inflow import UM3_PER_UL
from tracking.physics.sections.mesh import distance_from

FloatArray = npt.NDArray[np.float64]

WALL_STEP = 0.125
"""Pieces of the side walls, over the depth."""
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
    flows = fit.flows.flows
    matrix, _ = flows.domain.interpolation(np.asarray(position_um, np.float64))
    return fit.with_error(np.stack([matrix @ flows.velocity[axis] for axis in range(3)]))


def inflows_ul_s(fit: RegionFit) -> dict[str, Estimate]:
    """Flow rate into the region through each opening, uL/s; below 0 where liquid flows out."""
    values, errors = fit.with_error(fit.flows.inflow_um2 / UM3_PER_UL)
    names = [name for name, _ in fit.flows.flows.domain.region.openings]
    return {name: Estimate(float(v), float(e)) for name, v, e in zip(names, values, errors, strict=True)}


def pressures_pa(fit: RegionFit, viscosity_pa_s: float) -> dict[str, Estimate]:
    """Mean pressure on each opening less that on the last one, Pa."""
    domain = fit.flows.flows.domain
    names = [name for name, _ in domain.region.openings]
    means = [_mean_pressure(fit, side) for _, side in domain.region.openings]
    apart = np.stack([mean - means[-1] for mean in means]) * viscosity_pa_s / domain.unit_um
    values, errors = fit.with_error(apart)
    return {name: Estimate(float(v), float(e)) for name, v, e in zip(names, values, errors, strict=True)}


def _mean_pressure(fit: RegionFit, side: int) -> FloatArray:
    """Mean pressure (S,) on an opening, in the domain's units: only the constant of the depth has a mean."""
    domain = fit.flows.flows.domain
    start, end = (corner / domain.unit_um for corner in domain.region.side_um(side))
    width = float(np.linalg.norm(end - start))
    corner = np.flatnonzero(distance_from(np.stack([start, end]), domain.mesh.p.T) < 1e-9 * width)
    place = (domain.mesh.p.T[corner] - start) @ (end - start) / width
    order = np.argsort(place)
    row = domain.pressure_basis.nodal_dofs[0][corner[order]] * domain.functions
    mean: FloatArray = np.trapezoid(fit.flows.flows.pressure[row], place[order], axis=0) / width
    return mean


def wall_shear(fit: RegionFit, viscosity_pa_s: float) -> RegionShear:
    """Shear stress on floor, ceiling and side walls."""
    place, area, rate = _shear_rates(fit)
    vector, _ = fit.with_error(rate)
    size = np.linalg.norm(vector, axis=0)
    towards = np.divide(vector, size, out=np.zeros_like(vector), where=size > 0)
    along = (
        np.einsum("aw,aws->ws", towards, rate) * viscosity_pa_s
    )  # |shear| changes as its part along itself
    stress, error = fit.with_error(along)
    mean, mean_error = fit.with_error(area @ along / area.sum())
    region = fit.flows.flows.domain.region
    corners = region.reentrant_um
    apart = np.full(area.size, np.inf)
    for corner in corners:
        apart = np.minimum(apart, np.hypot(*(place[:2] - corner[:, None])))
    most = int(np.argmax(np.where(apart >= NEAR_CORNER * region.depth_um, stress, -np.inf)))
    return RegionShear(
        place,
        area,
        stress,
        error,
        Estimate(float(mean), float(mean_error)),
        Estimate(float(stress[most]), float(error[most])),
        place[:, most],
    )


def _shear_rates(fit: RegionFit) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Middles (3, W), areas (W,), and slopes (3, W, S) of the velocities away from the wall, 1/s per um/s."""
    flows, domain = fit.flows.flows, fit.flows.flows.domain
    region = domain.region
    corner = domain.mesh.p[:, domain.mesh.t] * domain.unit_um
    (ax, ay), (bx, by) = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    level = np.abs(ax * by - ay * bx) / 2.0
    places, areas, slopes = [], [], []
    for height, sign in ((region.floor_um, 1.0), (region.floor_um + region.depth_um, -1.0)):
        middle = np.concatenate([corner.mean(axis=1), np.full((1, level.size), height)])
        matrix, _ = domain.interpolation(middle, 1)
        places.append(middle)
        areas.append(level)
        slopes.append(np.stack([sign * (matrix @ flows.velocity[axis]) for axis in range(3)]))
    away = NEAR_WALL * region.depth_um
    for side in region.walls:
        middle, area, inwards = _side_pieces(region, side)
        near, twice = (domain.interpolation(middle + count * away * inwards)[0] for count in (1.0, 2.0))
        matrix = (4.0 * near - twice) / (2.0 * away)  # one-sided, of the second order; 0 at the wall
        places.append(middle)
        areas.append(area)
        slopes.append(np.stack([matrix @ flows.velocity[axis] for axis in range(3)]))
    return np.hstack(places), np.concatenate(areas), np.concatenate(slopes, axis=1)


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
