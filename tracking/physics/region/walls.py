"""The walls of a region in pieces, and the slopes of a flow's velocity there, from the balance of forces.

The derivative of a solution by finite elements is less accurate than the solution, and least so at walls. But the
equations hold for test functions w that do not vanish there too, with the force of the wall on the right,

    integral of grad u : grad w - p div w  =  integral over the wall of (du/dn - p n) . w,

and the left side of a solution tells the force about as well as its energy is known (consistent boundary flux:
Wheeler, SIAM J. Numer. Anal. 10, 908, 1973; Gresho et al., Int. J. Numer. Methods Fluids 7, 371, 1987). The
velocity is 0 on a wall, and the part of du/dn along it is the shear rate.

At floor and ceiling the test functions are those of the triangles times 1 and z: only the mean and the first moment
of the velocity over the depth count, which are known best. On a side wall they are the velocity's own. A node at
the end of a wall, or on an opening, belongs to two surfaces: there the slope is that of the solution itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu
from skfem import FacetBasis
from skfem.models.poisson import laplace, mass
from skfem.quadrature import get_quadrature

from tracking.physics.region.depth import overlap, velocity_functions
from tracking.physics.region.geometry import Region
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
"""Distance from a side wall, over half the depth, at which the slope at its ends is taken."""
ON_WALL = 1e-7
"""Distance of a point from a wall that it lies on, over half the depth: rounding."""


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
    slopes = np.zeros((3, walls.area_um2.size, flows.velocity.shape[2]))
    level = walls.inwards[2] != 0
    at = domain.seen_interpolation(walls.place_um[:2, level])
    for axis, (floor, ceiling) in enumerate(zip(*_level_slopes(flows), strict=True)):
        below = (walls.inwards[2, level] > 0)[:, None]
        slopes[axis, level] = np.where(below, at @ floor, at @ ceiling)
    seen = walls.place_um[:2].T
    for side in domain.region.walls:
        ends = domain.region.side_um(side)
        on_it = distance_from(np.stack(ends), seen) < ON_WALL * domain.unit_um
        own = np.flatnonzero(on_it & ~level)
        if own.size:
            slopes[:, own] = _at_side(flows, side, walls.place_um[:, own])
    return slopes / domain.unit_um


def _level_slopes(flows: StokesFlows) -> tuple[FloatArray, FloatArray]:
    """Slopes (2, nodes, S) away from floor and ceiling, along x and y, as coefficients of the triangles."""
    domain, basis = flows.domain, flows.domain.velocity_basis
    functions = domain.functions
    velocity = flows.velocity.reshape(3, basis.N, functions, -1)
    pressure = flows.pressure.reshape(domain.pressure_basis.N, functions, -1)
    bent, size = csc_array(laplace.assemble(basis)), csc_array(mass.assemble(basis))
    inner = np.ones(basis.N, np.bool_)
    inner[domain.outline_nodes] = False
    factors = splu(size[inner][:, inner])
    z, weight = legendre.leggauss(functions + 2)
    below, above = velocity_functions(np.array([-1.0, 1.0]), functions, 1)
    # What both walls do together, and floor less ceiling: tests with 1 and z.
    parts = np.zeros((2, 2, basis.N, velocity.shape[3]))
    for moment, own in ((0, below - above), (1, below + above)):
        over_depth = (weight * z**moment) @ velocity_functions(z, functions)
        for axis in range(2):
            slope = parts[moment, axis]
            slope[~inner] = np.einsum("k,nks->ns", own, velocity[axis, ~inner])
            force = bent @ np.einsum("k,nks->ns", over_depth, velocity[axis])
            force -= domain.seen_divergence[axis].T @ (pressure[:, moment] * 2.0 / (2.0 * moment + 1.0))
            inwards = -force if moment == 0 else force
            slope[inner] = factors.solve((inwards - size @ slope)[inner])
    return (parts[0] + parts[1]) / 2.0, (parts[0] - parts[1]) / 2.0


def _at_side(flows: StokesFlows, side: int, place_um: FloatArray) -> FloatArray:
    """Slopes (3, W, S) away from a side wall at places (3, W) on it."""
    domain, basis = flows.domain, flows.domain.velocity_basis
    functions = domain.functions
    start, end = (corner / domain.unit_um for corner in domain.region.side_um(side))
    along = (end - start) / np.linalg.norm(end - start)
    inwards = np.array([-along[1], along[0]])
    middle = domain.mesh.p[:, domain.mesh.facets].mean(axis=1).T
    facets = np.flatnonzero(distance_from(np.stack([start, end]), middle) < ON_WALL)
    nodes = basis.get_dofs(facets).all()
    apart = np.linalg.norm(basis.doflocs[:, nodes].T[:, None] - np.stack([start, end]), axis=2)
    tips = apart.argmin(axis=0)
    inner = np.setdiff1d(np.arange(nodes.size), tips)
    slope = np.zeros((3, nodes.size, functions, flows.velocity.shape[2]))
    slope[:, tips] = _one_sided(flows, start, end, inwards)
    size = csc_array(mass.assemble(FacetBasis(domain.mesh, basis.elem, facets=facets)))[nodes][:, nodes]
    factors = splu(csc_array(size[inner][:, inner]))
    rows = (nodes[:, None] * functions + np.arange(functions)).ravel()
    over_depth = overlap(functions)
    for axis, divergence in enumerate(domain.divergence):
        force = domain.friction[rows] @ flows.velocity[axis] - divergence[:, rows].T @ flows.pressure
        force = np.linalg.solve(over_depth, force.reshape(slope[axis].shape))
        rest = (-force).reshape(nodes.size, -1) - size @ slope[axis].reshape(nodes.size, -1)
        slope[axis, inner] = factors.solve(rest[inner]).reshape(slope[axis, inner].shape)
    slope[:2] -= inwards[:, None, None, None] * np.einsum(
        "a,anks->nks", inwards, slope[:2]
    )  # the pressure's part
    up = velocity_functions((place_um[2] - domain.region.floor_um) / domain.unit_um - 1.0, functions)
    shares = domain.seen_interpolation(place_um[:2] + ON_WALL * domain.unit_um * inwards[:, None])[:, nodes]
    found: FloatArray = np.einsum("wn,wk,anks->aws", shares.toarray(), up, slope, optimize=True)
    return found


def _one_sided(flows: StokesFlows, start: FloatArray, end: FloatArray, inwards: FloatArray) -> FloatArray:
    """Slopes (3, 2, functions, S) of the solution itself at both ends of a side wall, of the second order."""
    domain = flows.domain
    along = (end - start) / np.linalg.norm(end - start) * 2.0 * NEAR_WALL
    tips = np.stack([start + along, end - along], axis=1)
    near, twice = (
        domain.seen_interpolation((tips + count * NEAR_WALL * inwards[:, None]) * domain.unit_um)
        for count in (1.0, 2.0)
    )
    slope = (4.0 * near - twice) / (2.0 * NEAR_WALL)
    nodal = flows.velocity.reshape(3, domain.velocity_basis.N, -1)
    return np.stack([slope @ one for one in nodal]).reshape(3, 2, domain.functions, -1)


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
