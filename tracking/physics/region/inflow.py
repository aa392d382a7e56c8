"""What may flow through the openings of a region: developed flows, and shapes that differ from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre

from tracking.physics.region.depth import clamped_functions, overlap, projected, velocity_functions
from tracking.physics.region.stokes import Domain, StokesFlows, solve
from tracking.physics.sections.choice import profile_of
from tracking.physics.sections.shapes import Rectangle

FloatArray = npt.NDArray[np.float64]

ORDERS = (6, 4, 2)
"""Highest order, across the opening and over its depth together, of the shapes normal to it, along it, and along z.
The nearest flow of them to that through a constriction fed by side channels is off by 0.04 to 0.05 % of the fastest
velocity, mostly by the mesh; 0.1 % with orders of 4, 3 and 2."""
CARRIES = -1
"""Axis of a flow that carries liquid."""
UM3_PER_UL = 1e9


@dataclass(frozen=True, slots=True, eq=False)
class RegionFlows:
    """S flows in a region, 1 um/s each: the first ones carry liquid, the others none through any opening.

    Flow i < `carrying` goes in through opening i with the developed profile of a straight channel and out through
    the last one, with a mean velocity of 1 um/s where it goes in. The others have a rms velocity of 1 um/s on
    their opening; `shapes` (4, S) are the number of it, the axis of the velocity (0: normal to it, 1: along it, 2:
    up; `CARRIES` for the first flows), and the details across it and over the depth, from 0. `inflow_um2`
    (openings, S) is the flow rate into the region per velocity."""

    flows: StokesFlows
    shapes: npt.NDArray[np.int64]
    inflow_um2: FloatArray

    @property
    def carrying(self) -> int:
        """Number of flows that carry liquid: one less than the openings."""
        return int(np.count_nonzero(self.shapes[1] == CARRIES))


@dataclass(frozen=True, slots=True, eq=False)
class _Opening:
    """Nodes inside an opening, from -1 to 1 across it (`place`), half its width, and its axes: inwards and
    along."""

    nodes: npt.NDArray[np.int64]
    place: FloatArray
    half_width: float
    axes: FloatArray


def region_flows(domain: Domain, orders: tuple[int, int, int] = ORDERS) -> RegionFlows:
    """Solve the flow of every shape at every opening."""
    openings = [_opening(domain, side) for _, side in domain.region.openings]
    developed = [_developed(domain, one) for one in openings]
    rates = [_inflow(domain, shape) for shape in developed]
    shapes, names = [], []
    for number, (shape, rate, one) in enumerate(zip(developed[:-1], rates[:-1], openings[:-1], strict=True)):
        area = 2.0 * one.half_width * 2.0
        shapes.append((shape / rate - developed[-1] / rates[-1]) * area)
        names.append((number, CARRIES, 0, 0))
    for number, (one, mean, rate) in enumerate(zip(openings, developed, rates, strict=True)):
        for detailed, name in _details(domain, one, orders):
            balanced = detailed - mean * (_inflow(domain, detailed) / rate)
            shapes.append(balanced / _rms(domain, one, balanced))
            names.append((number, *name))
    outline = np.stack(shapes, axis=-1)
    flows = solve(domain, outline.reshape(3, -1, len(shapes)))
    inflow = np.zeros((len(openings), len(shapes)))
    for number, one in enumerate(openings):
        own = np.zeros_like(outline)
        own[:, one.nodes] = outline[:, one.nodes]
        inflow[number] = [_inflow(domain, own[..., s]) for s in range(len(shapes))]
    inflow[np.abs(inflow) < 1e-9 * np.abs(inflow).max()] = 0.0
    return RegionFlows(flows, np.array(names).T, inflow * domain.unit_um**2)


def _opening(domain: Domain, side: int) -> _Opening:
    start, end = (corner / domain.unit_um for corner in domain.region.side_um(side))
    width = float(np.linalg.norm(end - start))
    along = (end - start) / width
    inwards = np.array([-along[1], along[0]])
    nodes = domain.outline_nodes
    apart = domain.velocity_basis.doflocs[:, nodes].T - start
    place = 2.0 * (apart @ along) / width - 1.0
    on_it = (np.abs(apart @ inwards) < 1e-9 * width) & (np.abs(place) < 1.0 - 1e-9)
    axes = np.array([[*inwards, 0.0], [*along, 0.0], [0.0, 0.0, 1.0]])
    return _Opening(nodes[on_it], place[on_it], width / 2.0, axes)


def _developed(domain: Domain, one: _Opening) -> FloatArray:
    """The flow of a long rectangular channel, inwards, with a mean of about 1: (3, nodes, functions)."""
    z, weight = legendre.leggauss(4 * domain.functions)
    profile = profile_of(Rectangle(2.0 * one.half_width, 2.0))
    y, height = np.broadcast_arrays((one.place * one.half_width)[:, None], z + 1.0)
    values = profile.at(y.ravel(), height.ravel()).reshape(y.shape)
    return _at(domain, one, projected(values, z, weight, domain.functions), 0)


def _details(
    domain: Domain, one: _Opening, orders: tuple[int, int, int]
) -> list[tuple[FloatArray, tuple[int, int, int]]]:
    """Shapes that vanish at the walls, with their axis and details across and over the depth; the simplest normal
    one is the developed flow itself.

    No liquid is drawn from a wall: where nothing flows along it, continuity leaves no slope of the velocity that is
    normal to it. So a velocity along the opening vanishes with its slope at the side walls, and one up at floor and
    ceiling; shapes without that would put strong pressures at the opening's rim that no flow has."""
    z, weight = legendre.leggauss(2 * domain.functions)
    clamped = clamped_functions(z, max(domain.functions - 2, 0))  # up to the degree of the other functions
    clamped = projected(clamped.T, z, weight, domain.functions)
    found = []
    for axis, most in enumerate(orders):
        across = (clamped_functions if axis == 1 else velocity_functions)(one.place, most)
        over_depth = clamped if axis == 2 else np.eye(domain.functions)
        for j in range(most):
            for k in range(min(most - j, len(over_depth))):
                if axis == 0 and j == k == 0:
                    continue
                values = np.outer(across[:, j], over_depth[k])
                found.append((_at(domain, one, values, axis), (axis, j, k)))
    return found


def _at(domain: Domain, one: _Opening, values: FloatArray, axis: int) -> FloatArray:
    """Coefficients (3, nodes, functions) of a velocity along an axis of the opening, (its nodes, functions)."""
    shape = np.zeros((3, domain.velocity_basis.N, domain.functions))
    shape[:, one.nodes] = one.axes[axis][:, None, None] * values
    return shape


def _inflow(domain: Domain, shape: FloatArray) -> float:
    """Flow into the region through its outline, in the domain's units: the mean divergence of what is given
    there."""
    columns = shape.reshape(3, -1)
    return -sum(
        float((matrix @ column)[:: domain.functions].sum())
        for matrix, column in zip(domain.divergence, columns, strict=True)
    )


def _rms(domain: Domain, one: _Opening, shape: FloatArray) -> float:
    """Root of the mean square of a velocity over the opening (trapezoid rule across it)."""
    order = np.argsort(one.place)
    rim = np.concatenate([[-1.0], one.place[order], [1.0]])
    values = shape[:, one.nodes[order]]
    square = np.einsum("ank,kl,anl->n", values, overlap(domain.functions), values) / 2.0
    return float(np.sqrt(np.trapezoid(np.concatenate([[0.0], square, [0.0]]), rim) / 2.0))
