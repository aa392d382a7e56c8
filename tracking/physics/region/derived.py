"""What follows from the flow in a region, with standard errors: velocities, flow rates, pressures and wall
shear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracking.physics.channel.derived import Estimate
from tracking.physics.region.fit import RegionFit
from tracking.physics.region.inflow import UM3_PER_UL, RegionFlows
from tracking.physics.region.walls import shear_rates, wall_pieces
from tracking.physics.sections.mesh import distance_from

FloatArray = npt.NDArray[np.float64]

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
    rates = {id(flows): shear_rates(flows.flows, walls) for flows in (fit.flows, fit.coarser[0])}
    vector = rates[id(fit.flows)] @ fit.amplitude
    size = np.linalg.norm(vector, axis=0)
    towards = np.divide(vector, size, out=np.zeros_like(vector), where=size > 0)

    def along(flows: RegionFlows) -> FloatArray:  # |shear| changes as its part along itself
        stress: FloatArray = np.einsum("aw,aws->ws", towards, rates[id(flows)]) * viscosity_pa_s
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
