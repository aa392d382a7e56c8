"""The flow through any section, with slip and shear thinning: quadratic finite elements (scikit-fem)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.tri import Triangulation
from scipy.sparse.linalg import splu
from skfem import Basis, BilinearForm, ElementTriP2, FacetBasis, LinearForm, condense
from skfem.helpers import dot, grad
from skfem.models.poisson import laplace, mass, unit_load

from stream.errors import ConfigurationError
from tracking.physics.sections.mesh import mesh_of, shares_of_corners
from tracking.physics.sections.profile import Wall
from tracking.physics.sections.shapes import Section, signed_area

FloatArray = npt.NDArray[np.float64]

SMOOTHING = 1e-3
"""Shear rate below which a power-law liquid is taken as Newtonian, over its typical value. Its viscosity would be
infinite or zero at rest; the velocity changes by less than 1e-5."""
INDEX_STEP = 0.88
"""Flow indices are solved in factors of this from 1, each from the one before; those in between are interpolated by
cubics, within 2e-5. So a fit that tries many solves few."""
SLIP_STEP, SLIP_UNIT = 0.5, 0.1
"""Slip lengths of power-law liquids are solved in equal steps of log(1 + slip / (SLIP_UNIT depth)), and those in
between are interpolated by cubics too."""
NEWTON_STEPS = 60
"""Most steps of Newton's iteration; it takes 5 to 15."""
TOLERANCE = 1e-8
"""Change of the velocity, over its maximum, at which Newton's iteration ends."""


@dataclass(frozen=True, eq=False)
class ElementProfile:
    """A developed flow on triangles, scaled to a mean velocity of 1; `values` are of the quadratic elements."""

    basis: Any
    values: FloatArray
    resistance: float
    outline_um: FloatArray
    finder: Any

    def at(self, y_um: FloatArray, z_um: FloatArray) -> FloatArray:
        """F at points (N,); 0 outside."""
        found = self.finder(y_um, z_um)
        shares = quadratic_shares(self.basis.mesh, found, y_um, z_um)
        velocity = (shares * self.values[self.basis.element_dofs[:, found]]).sum(axis=0)
        return np.where(found >= 0, velocity, 0.0)

    def wall(self) -> Wall:
        """The shear at the wall, side by side around the outline."""
        rim = FacetBasis(self.basis.mesh, self.basis.elem, intorder=2)
        slope = rim.interpolate(self.values).grad
        normal = rim.normals
        length = rim.dx.sum(axis=1)
        shear = np.abs((slope * normal).sum(axis=0) * rim.dx).sum(axis=1) / length
        middle = (np.asarray(rim.global_coordinates()) * rim.dx).sum(axis=2) / length
        order = np.argsort(_along(self.outline_um, middle.T))
        return Wall(middle[0, order], middle[1, order], length[order], shear[order])


def quadratic_shares(mesh: Any, found: npt.NDArray[np.int_], x: FloatArray, y: FloatArray) -> FloatArray:
    """What each of the 6 values of a quadratic triangle counts for at points (N,) in the triangles `found`, (6,
    N)."""
    a, b, c = shares_of_corners(mesh, found, x, y)
    return np.stack([a * (2 * a - 1), b * (2 * b - 1), c * (2 * c - 1), 4 * a * b, 4 * b * c, 4 * a * c])


def element_profile(section: Section, slip_um: float = 0.0, index: float = 1.0) -> ElementProfile:
    """Solve div(|grad phi|^(m-1) grad phi) = -1 with the flow index m; phi = -slip dphi/dn at the wall.

    With both, the stress at the wall is |phi / slip|^m.

    Raises `ConfigurationError` for an index that is not above 0, a negative slip, or if the iteration does not
    converge.
    """
    if not index > 0 or slip_um < 0:
        raise ConfigurationError(
            f"no flow with the index {index:g} and the slip length {slip_um:g} um can be calculated; "
            "give an index above 0 and a slip length of 0 or more"
        )
    mesh = mesh_of(section)
    basis = Basis(mesh, ElementTriP2())
    finder = Triangulation(mesh.p[0], mesh.p[1], mesh.t.T).get_trifinder()
    area = abs(signed_area(section.outline_um()))
    if slip_um > 0 and index == 1.0:
        load = unit_load.assemble(basis)
        friction = mass.assemble(FacetBasis(mesh, basis.elem)) / slip_um
        phi = splu((laplace.assemble(basis) + friction).tocsc()).solve(load)
        mean = float(load @ phi) / area
        return ElementProfile(basis, phi / mean, 1.0 / mean, section.outline_um(), finder)
    shape = section.resized(section.width_um / section.depth_um, 1.0)
    slips = _nodes(math.log1p(slip_um / section.depth_um / SLIP_UNIT) / SLIP_STEP, 0)
    values, resistance = np.zeros(basis.N), 0.0
    for node, share in _nodes(math.log(index) / math.log(INDEX_STEP)).items():
        for slip, part in slips.items():
            solved, own_resistance = _at_node(shape, node, slip)
            values += share * part * solved
            resistance += share * part * math.log(own_resistance)
    scale = section.depth_um ** -(1.0 + index)
    return ElementProfile(basis, values, math.exp(resistance) * scale, section.outline_um(), finder)


def _nodes(place: float, least: int | None = None) -> dict[int, float]:
    """The four whole numbers around a place, none below `least`, and what each counts in a cubic through them."""
    if place == round(place):
        return {round(place): 1.0}
    first = math.floor(place) - 1
    nodes = range(first, first + 4) if least is None else range(max(first, least), max(first, least) + 4)
    return {n: math.prod((place - m) / (n - m) for m in nodes if m != n) for n in nodes}


@lru_cache(maxsize=64)
def _at_node(section: Section, node: int, slip_node: int) -> tuple[FloatArray, float]:
    """Velocities at a mean of 1 and the resistance, for the flow index `INDEX_STEP` ** node and a node of the
    slip."""
    mesh = mesh_of(section)
    basis = Basis(mesh, ElementTriP2())
    slip = SLIP_UNIT * math.expm1(slip_node * SLIP_STEP) * section.depth_um
    load = unit_load.assemble(basis)
    rim = FacetBasis(mesh, basis.elem) if slip else None
    if node:
        nearer, _ = _at_node(section, node - int(math.copysign(1, node)), slip_node)
        values, strength = _minimised(basis, rim, slip, load, nearer, INDEX_STEP**node)
    elif rim is None:
        values, strength = _solved(laplace.assemble(basis), load, np.zeros(basis.N), basis), 1.0
    else:
        values = splu((laplace.assemble(basis) + mass.assemble(rim) / slip).tocsc()).solve(load)
        strength = 1.0
    mean = float(load @ values) / abs(signed_area(section.outline_um()))
    return values / mean, strength * mean ** -(INDEX_STEP**node)


def _solved(matrix: Any, load: FloatArray, at_wall: FloatArray, basis: Any) -> FloatArray:
    """Solve with the values of `at_wall` at the wall."""
    reduced, right, values, free = condense(matrix, load, x=at_wall, D=basis.get_dofs())
    values[free] = splu(reduced.tocsc()).solve(right)
    solved: FloatArray = values
    return solved


def _minimised(
    basis: Any, rim: Any | None, slip: float, load: FloatArray, start: FloatArray, m: float
) -> tuple[FloatArray, float]:
    """Newton's iteration for the least energy: integral of |grad u|^(m+1) / (m+1) - strength u, and over the wall
    `rim`, where there is slip, of slip |u / slip|^(m+1) / (m+1).

    A solution u for another strength is a multiple of it; the strength is chosen for a solution near `start`
    (energy balance: the integrals of the powers are together that of strength u).
    """
    square = (basis.interpolate(start).grad ** 2).sum(axis=0)
    floor = SMOOTHING**2 * float((square * basis.dx).sum() / basis.dx.sum())

    def power(values: FloatArray, floor: float) -> float:
        slope = (basis.interpolate(values).grad ** 2).sum(axis=0)
        total = float(((slope + floor) ** ((m + 1.0) / 2.0) * basis.dx).sum())
        if rim is not None:
            beside = (np.asarray(rim.interpolate(values)) / slip) ** 2
            total += slip * float(((beside + floor) ** ((m + 1.0) / 2.0) * rim.dx).sum())
        return total

    strength = power(start, 0.0) / float(load @ start)

    def energy(values: FloatArray) -> float:
        return power(values, floor) / (m + 1.0) - strength * float(load @ values)

    values, now = start, energy(start)
    zero = np.zeros(basis.N)
    for _ in range(NEWTON_STEPS):
        previous = basis.interpolate(values)
        matrix = _tangent.assemble(basis, previous=previous, m=m, floor=floor)
        residual = strength * load - _stress.assemble(basis, previous=previous, m=m, floor=floor)
        if rim is None:
            step = _solved(matrix, residual, zero, basis)
        else:
            given = {"previous": rim.interpolate(values), "m": m, "floor": floor, "slip": slip}
            matrix = matrix + _wall_tangent.assemble(rim, **given)
            step = splu(matrix.tocsc()).solve(residual - _wall_stress.assemble(rim, **given))
        share = 1.0
        while (then := energy(values + share * step)) > now + 1e-12 * abs(now) and share > 1e-3:
            share /= 2.0
        values, now = values + share * step, then
        if np.abs(share * step).max() < TOLERANCE * np.abs(values).max():
            return values, strength
    raise ConfigurationError(
        f"the flow of a liquid with the flow index {m:.3g} could not be calculated; give one nearer to 1"
    )


@BilinearForm
def _tangent(u: Any, v: Any, w: Any) -> Any:
    slope = grad(w["previous"])
    square = dot(slope, slope) + w["floor"]
    return square ** ((w["m"] - 1) / 2) * dot(grad(u), grad(v)) + (w["m"] - 1) * square ** (
        (w["m"] - 3) / 2
    ) * dot(slope, grad(u)) * dot(slope, grad(v))


@LinearForm
def _stress(v: Any, w: Any) -> Any:
    slope = grad(w["previous"])
    return (dot(slope, slope) + w["floor"]) ** ((w["m"] - 1) / 2) * dot(slope, grad(v))


@BilinearForm
def _wall_tangent(u: Any, v: Any, w: Any) -> Any:
    speed = w["previous"] / w["slip"]
    square = speed**2 + w["floor"]
    slope = square ** ((w["m"] - 1) / 2) + (w["m"] - 1) * square ** ((w["m"] - 3) / 2) * speed**2
    return slope / w["slip"] * u * v


@LinearForm
def _wall_stress(v: Any, w: Any) -> Any:
    speed = w["previous"] / w["slip"]
    return (speed**2 + w["floor"]) ** ((w["m"] - 1) / 2) * speed * v


def _along(corners: FloatArray, points: FloatArray) -> FloatArray:
    """Place of points (N, 2) on the outline (C, 2), as length along it."""
    place, nearest = np.zeros(len(points)), np.full(len(points), np.inf)
    before = 0.0
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        length = float(np.linalg.norm(b - a))
        share = np.clip((points - a) @ (b - a) / length**2, 0.0, 1.0)
        apart = np.linalg.norm(points - a - share[:, None] * (b - a), axis=1)
        closer = apart < nearest
        place[closer] = before + share[closer] * length
        nearest[closer] = apart[closer]
        before += length
    return place
