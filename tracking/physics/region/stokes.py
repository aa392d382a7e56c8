"""Stokes flow in a region of constant depth: cubic triangles seen from above, polynomials over the depth.

The velocity is cubic and the pressure quadratic on the triangles (Taylor & Hood, Computers & Fluids 1, 73, 1973),
each times the polynomials of `tracking.physics.region.depth`: far fewer unknowns than tetrahedra for the same
error. The flow is given on the outline and is 0 at floor and ceiling. Flows that are even and odd about the middle
of the depth (in x and y; the other way round in z) do not mix, and are solved one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.tri import Triangulation
from scipy.sparse import block_array, csc_array, csr_array, diags_array, kron
from scipy.sparse.linalg import splu
from skfem import Basis, BilinearForm, ElementTriP1, ElementTriP2, ElementTriP3, ElementTriP4
from skfem.models.poisson import laplace, mass

from tracking.physics.region.depth import overlap, pressure_overlap, velocity_functions
from tracking.physics.region.geometry import Region
from tracking.physics.sections.mesh import divided, filled, shares_of_corners
from tracking.physics.sections.shapes import signed_area

FloatArray = npt.NDArray[np.float64]

ELEMENTS = {1: ElementTriP1, 2: ElementTriP2, 3: ElementTriP3, 4: ElementTriP4}
DEGREE = 3
"""Of the velocity on the triangles. In a straight channel the shear at the side walls is then wrong by 0.5 %; by
3 % with quadratic ones of about as many unknowns."""
CELLS_ACROSS = 2.0
"""Triangles over the depth or over the narrowest opening, whichever is less, before those at walls are divided."""
MOST_TRIANGLES = 150
"""Of larger regions, whose triangles are then larger, before those at walls are divided: a solution takes seconds
and below 1 GB."""
DEPTH_FUNCTIONS = 7
"""Polynomials over the depth, up to the eighth order: the series of a square channel within 1e-4 of its maximum."""
COMPRESSIBLE = 1e-7
"""Compressibility, over 1 / viscosity, of the system that is factorised: every pivot is safe in any order
(quasi-definite; Vanderbei, SIAM J. Optim. 5, 100, 1995), and the mean pressure is 0. Refinement takes it out
again."""
REFINEMENTS = 1
"""Corrections with the same factors; each makes the error 1e-3 of what it was, or less: 1e-6 is left."""
ROUNDING = 1e-12
"""Of the largest velocity on the outline: below it one is 0."""
LEAF_NODES = 24
"""Nodes that are eliminated together at the end of the dissection."""


@dataclass(frozen=True, eq=False)
class Domain:
    """The mesh of a region, in units of half its depth: x and y as they are over it, z from -1 to 1."""

    region: Region
    mesh: Any
    functions: int
    degree: int = DEGREE

    @property
    def unit_um(self) -> float:
        """Half the depth."""
        return self.region.depth_um / 2.0

    @cached_property
    def velocity_basis(self) -> Any:
        """Triangles of the velocity, `skfem.Basis`."""
        return Basis(self.mesh, ELEMENTS[self.degree](), intorder=2 * self.degree)

    @cached_property
    def pressure_basis(self) -> Any:
        """Triangles of the pressure, a degree lower, with the same quadrature."""
        return Basis(self.mesh, ELEMENTS[self.degree - 1](), intorder=2 * self.degree)

    @cached_property
    def finder(self) -> Any:
        """The triangle of points x, y, or -1."""
        return Triangulation(self.mesh.p[0], self.mesh.p[1], self.mesh.t.T).get_trifinder()

    @cached_property
    def outline_nodes(self) -> npt.NDArray[np.int64]:
        """Nodes of the velocity on the outline."""
        nodes: npt.NDArray[np.int64] = self.velocity_basis.get_dofs().all()
        return nodes

    @cached_property
    def friction(self) -> csr_array:
        """Integrals of the products of the slopes of each two velocities along one axis; a sparse matrix."""
        basis, count = self.velocity_basis, self.functions
        bent = kron(laplace.assemble(basis), overlap(count)) + kron(mass.assemble(basis), np.eye(count))
        return csr_array(bent)

    @cached_property
    def seen_divergence(self) -> tuple[csr_array, csr_array]:
        """Integrals over the triangles of each pressure times the derivatives of each velocity along x and y."""
        bases = self.velocity_basis, self.pressure_basis
        return csr_array(_along_x.assemble(*bases)), csr_array(_along_y.assemble(*bases))

    @cached_property
    def divergence(self) -> tuple[csr_array, csr_array, csr_array]:
        """Integrals of each pressure times the derivatives of each velocity along x, y, z; sparse matrices."""
        flat, slope = pressure_overlap(self.functions, 0), pressure_overlap(self.functions, 1)
        bases = self.velocity_basis, self.pressure_basis
        along = [csr_array(kron(seen, flat)) for seen in self.seen_divergence]
        return along[0], along[1], csr_array(kron(mass.assemble(*bases), slope))

    def weights(
        self, position_um: FloatArray, derivative: int = 0
    ) -> tuple[npt.NDArray[np.int64], FloatArray, npt.NDArray[np.bool_]]:
        """Which coefficients (N, nodes of a triangle, functions) count at positions (3, N), for how much of the
        velocity there, or of its `derivative` along z (1/um of it), and which positions are in the region; 0
        outside."""
        node, shares, inside = self._seen_weights(position_um[:2])
        z = (position_um[2] - self.region.floor_um) / self.unit_um - 1.0
        known = inside & (np.abs(z) <= 1.0)
        up = velocity_functions(np.clip(z, -1.0, 1.0), self.functions, derivative) / self.unit_um**derivative
        column = node[:, :, None] * self.functions + np.arange(self.functions)
        return column, (shares * known[:, None])[:, :, None] * up[:, None, :], known

    def _seen_weights(
        self, seen_um: FloatArray
    ) -> tuple[npt.NDArray[np.int64], FloatArray, npt.NDArray[np.bool_]]:
        """Nodes (N, nodes of a triangle) that count at places x, y (2, N), for how much, and which are inside."""
        x, y = seen_um / self.unit_um
        found = self.finder(x, y)
        _, *local = shares_of_corners(self.mesh, found, x, y)
        element = self.velocity_basis.elem
        shares = np.stack([element.lbasis(np.stack(local), i)[0] for i in range(len(element.doflocs))])
        return self.velocity_basis.element_dofs[:, found].T, shares.T * (found >= 0)[:, None], found >= 0

    def seen_interpolation(self, seen_um: FloatArray) -> csr_array:
        """The matrix (N, nodes) that gives what is known at the nodes at places x, y (2, N); 0 outside."""
        node, shares, _ = self._seen_weights(seen_um)
        row = np.broadcast_to(np.arange(len(node))[:, None], node.shape)
        return csr_array(
            (shares.ravel(), (row.ravel(), node.ravel())), shape=(len(node), self.velocity_basis.N)
        )

    def interpolation(
        self, position_um: FloatArray, derivative: int = 0
    ) -> tuple[csr_array, npt.NDArray[np.bool_]]:
        """The matrix (N, nodes * functions) that gives a velocity at positions (3, N), and which are in the region;
        see `weights`."""
        column, weight, known = self.weights(position_um, derivative)
        row = np.broadcast_to(np.arange(known.size)[:, None, None], column.shape)
        size = (known.size, self.velocity_basis.N * self.functions)
        return csr_array((weight.ravel(), (row.ravel(), column.ravel())), shape=size), known


@dataclass(frozen=True, eq=False)
class StokesFlows:
    """S flows: `velocity` (3, nodes * functions, S), um/s, and `pressure` (corners * functions, S) over the
    viscosity, 1/s, as coefficients in a domain."""

    domain: Domain
    velocity: FloatArray
    pressure: FloatArray


def domain_of(
    region: Region,
    *,
    cells_across: float = CELLS_ACROSS,
    most_triangles: int = MOST_TRIANGLES,
    functions: int = DEPTH_FUNCTIONS,
    degree: int = DEGREE,
) -> Domain:
    """The mesh of a region. Raises `ConfigurationError` if its outline is too intricate."""
    unit = region.depth_um / 2.0
    corners = region.outline_um / unit
    widths = [float(np.linalg.norm(np.subtract(*region.side_um(side)))) / unit for _, side in region.openings]
    area = abs(signed_area(corners))
    side = min([2.0, *widths]) / cells_across
    side = max(side, np.sqrt(area / most_triangles * 4.0 / np.sqrt(3.0)))
    walls = [np.array(region.side_um(wall)) / unit for wall in region.walls]
    mesh = divided(filled(corners, side, 0.0), side, walls, region.reentrant_um / unit)
    return Domain(region, mesh, functions, degree)


def coarser_of(region: Region) -> Domain:
    """A mesh with sides twice as long as `domain_of` makes them, and fewer functions over the depth: what it gives
    otherwise tells the error of both."""
    return domain_of(
        region,
        cells_across=CELLS_ACROSS / 2.0,
        most_triangles=MOST_TRIANGLES // 4,
        functions=DEPTH_FUNCTIONS - 1,
    )


def solve(domain: Domain, outline: FloatArray) -> StokesFlows:
    """The flows with the velocities `outline` (3, nodes * functions, S) on the outline; other nodes do not count.

    The flux of each through the outline has to be 0.
    """
    nodes, functions = domain.velocity_basis.N, domain.functions
    velocity = np.zeros_like(outline)
    pressure = np.zeros((domain.pressure_basis.N * functions, outline.shape[2]))
    edge = np.zeros(nodes, np.bool_)
    edge[domain.outline_nodes] = True
    velocity.reshape(3, nodes, functions, -1)[:, edge] = outline.reshape(3, nodes, functions, -1)[:, edge]
    least = ROUNDING * float(np.abs(velocity).max())
    for even in (True, False):
        level = _of_parity(functions, even)
        used = [_places(nodes, functions, kind) for kind in (level, level, ~level)]
        given = np.any(
            [np.any(np.abs(velocity[axis, used[axis]]) > least, axis=0) for axis in range(3)], axis=0
        )
        if given.any():
            _solve_parity(domain, edge, used, _places(domain.pressure_basis.N, functions, level), given,
                          velocity, pressure)  # fmt: skip
    return StokesFlows(domain, velocity, pressure)


def _of_parity(functions: int, even: bool) -> npt.NDArray[np.bool_]:
    """Which phi are even, or odd, about the middle of the depth: phi_1 is even; L_0 too."""
    level: npt.NDArray[np.bool_] = (np.arange(functions) % 2 == 0) == even
    return level


def _places(nodes: int, functions: int, level: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Coefficients of all nodes with some of the functions."""
    return (np.arange(nodes)[:, None] * functions + np.flatnonzero(level)).ravel()


def _solve_parity(
    domain: Domain,
    edge: npt.NDArray[np.bool_],
    used: list[npt.NDArray[np.int64]],
    pressures: npt.NDArray[np.int64],
    given: npt.NDArray[np.bool_],
    velocity: FloatArray,
    pressure: FloatArray,
) -> None:
    """Solve the flows `given` of one parity: fills the inner coefficients `used` of the velocity and
    `pressures`."""
    functions = domain.functions
    lengths = diags_array(2.0 / (2.0 * np.arange(functions) + 1.0))
    volume = csr_array(kron(mass.assemble(domain.pressure_basis), lengths))
    free = [one[~edge[one // functions]] for one in used]
    fixed = [one[edge[one // functions]] for one in used]
    inner: list[list[Any]] = [[None] * 4 for _ in range(4)]
    right: list[FloatArray] = []
    drain = np.zeros((pressures.size, int(given.sum())))
    for axis in range(3):
        rows = domain.friction[free[axis]]
        known = velocity[axis, fixed[axis]][:, given]
        inner[axis][axis] = rows[:, free[axis]]
        divergence = domain.divergence[axis][pressures]
        inner[3][axis] = -divergence[:, free[axis]]
        inner[axis][3] = inner[3][axis].T
        right.append(-rows[:, fixed[axis]] @ known)
        drain += divergence[:, fixed[axis]] @ known
    matrix = csr_array(block_array(inner))
    inner[3][3] = -COMPRESSIBLE * volume[pressures][:, pressures]
    order = _elimination_order(domain, free, pressures)
    factors = splu(
        csc_array(block_array(inner))[order][:, order],
        permc_spec="NATURAL",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    every = np.concatenate([*right, drain])
    solved = np.zeros_like(every)
    for _ in range(1 + REFINEMENTS):
        solved[order] += factors.solve((every - matrix @ solved)[order])
    first = 0
    for axis in range(3):
        velocity[axis, free[axis][:, None], np.flatnonzero(given)] = solved[first : first + free[axis].size]
        first += free[axis].size
    pressure[pressures[:, None], np.flatnonzero(given)] = solved[first:]


def _elimination_order(
    domain: Domain, free: list[npt.NDArray[np.int64]], pressures: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Order of all unknowns: nested dissection of the nodes (George, SIAM J. Numer. Anal. 10, 345, 1973)."""
    basis, pressure_basis = domain.velocity_basis, domain.pressure_basis
    rank = np.empty(basis.N)
    rank[_dissected(mass.assemble(basis).tocsr(), basis.doflocs.T, np.arange(basis.N))] = np.arange(basis.N)
    beside = np.empty(pressure_basis.N, np.int64)  # a velocity's node on the same corner, side or triangle
    for kind_of_dofs in ("nodal_dofs", "facet_dofs", "interior_dofs"):
        for row in getattr(pressure_basis, kind_of_dofs):
            beside[row] = getattr(basis, kind_of_dofs)[0]
    node = np.concatenate([*(one // domain.functions for one in free), beside[pressures // domain.functions]])
    kind = np.repeat([0, 0, 0, 1], [*(one.size for one in free), pressures.size])
    order: npt.NDArray[np.int64] = np.lexsort((kind, rank[node]))
    return order


def _dissected(neighbours: Any, place: FloatArray, nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The nodes of both halves, then those in between, in the order of elimination."""
    if nodes.size <= LEAF_NODES:
        return nodes
    mine = place[nodes]
    along = mine[:, int(np.argmax(np.ptp(mine, axis=0)))]
    first = along < np.median(along)
    if not first.any():
        return nodes
    touched = np.zeros(len(place), np.bool_)
    touched[neighbours[nodes[first]].indices] = True
    between = ~first & touched[nodes]
    halves = [_dissected(neighbours, place, nodes[half]) for half in (first, ~first & ~between)]
    return np.concatenate([*halves, nodes[between]])


@BilinearForm
def _along_x(u: Any, q: Any, w: Any) -> Any:
    return u.grad[0] * q


@BilinearForm
def _along_y(u: Any, q: Any, w: Any) -> Any:
    return u.grad[1] * q
