"""Candidate links: which detections each track may take, found on a grid over the image and tested by a gate.

The grid lies in x and y and has about one detection per cell. z is tested, not gridded: the depth that a microscope
sees holds only a few layers of particles. The result are compressed rows, as `tracking.assignment` takes them.

Symbols are those of Bar-Shalom, Li & Kirubarajan, Estimation with Applications to Tracking and Navigation
(2001): P is the variance of a prediction, R that of a detection, S = P + R that of the innovation nu (their
difference), and d^2 = nu' S^-1 nu the squared Mahalanobis distance.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tracking.assignment import IntArray

FloatArray = npt.NDArray[np.float64]

OVERFLOW = -1  # returned by the gates when the candidates do not fit into their arrays
CELLS_PER_POINT = 3  # room for cells: an elongated image has more cells than points, never more than this
SMALLEST_CELL_UM = 1e-9  # with a smaller spread all points share one cell

OUTLIERS = 0.05
"""Share e of right links whose innovation is drawn from a wider distribution: particles that the flow
accelerates and badly centred ones. Larger: these are kept more easily, and wrong far links cost less."""
OUTLIER_SCALE = 3.0
"""How many times wider k that distribution is. Larger values link farther where particles are sparse."""


class Grid(NamedTuple):
    """Points sorted into cells, made by `index_points`.

    `geometry` (5,): x0 and y0 (um), 1 / cell size (1/um), columns, rows. `starts`: the first point of each
    cell, one more at the end. `order` (M,): the point's original index. `cell_of` (M,): its cell. `ordered` (6,
    M): x, y, z and their variances R in the order of cells.
    """

    geometry: Any
    starts: Any
    order: Any
    cell_of: Any
    ordered: Any


class Rows(NamedTuple):
    """Compressed rows: those of track i are `indices[indptr[i]:indptr[i + 1]]` at `costs`."""

    indptr: Any
    indices: Any
    costs: Any


class Predictions(NamedTuple):
    """Predicted positions `x` and their variances `P`, (3, N); `hits` (N,), how often each track was detected."""

    x: Any
    P: Any
    hits: Any


class Gate(NamedTuple):
    """Limits of the links: `gamma` for d^2, a chi-square quantile; `no_link_cost`; a track is proven from
    `proven` hits.

    `widest` (3,) is the largest variance R of a detection in each axis, um^2.
    """

    gamma: float
    no_link_cost: float
    proven: int
    widest: Any


class CandidateWorkspace:
    """The grid and the compressed rows, grown geometrically and kept between calls."""

    def __init__(self, rows: int = 256, points: int = 256, candidates: int = 1024) -> None:
        self.grid = _grid(points)
        self.found = Rows(np.zeros(rows + 1, np.int32), np.empty(candidates, np.int32), np.empty(candidates))

    def reserve(self, rows: int, points: int) -> None:
        """Make room for this many tracks and detections."""
        if rows + 1 > self.found.indptr.size:
            indptr = np.zeros(max(rows + 1, 2 * self.found.indptr.size), np.int32)
            self.found = self.found._replace(indptr=indptr)
        if points > self.grid.order.size:
            self.grid = _grid(max(points, 2 * self.grid.order.size))

    def grow_candidates(self) -> None:
        """Double the room for the candidates of all rows together."""
        more = 2 * self.found.indices.size
        self.found = self.found._replace(indices=np.empty(more, np.int32), costs=np.empty(more))

    def rows(self, count: int) -> tuple[IntArray, IntArray, FloatArray]:
        """Views of the compressed rows last found: indptr (count + 1,), indices and costs (n,)."""
        indptr = self.found.indptr[: count + 1]
        return indptr, self.found.indices[: indptr[-1]], self.found.costs[: indptr[-1]]


def _grid(points: int) -> Grid:
    return Grid(
        geometry=np.zeros(5),
        starts=np.empty(CELLS_PER_POINT * points + 16, np.int32),
        order=np.empty(points, np.int32),
        cell_of=np.empty(points, np.int32),
        ordered=np.empty((6, points)),
    )


def within_distance(
    origins: FloatArray, points: FloatArray, radius_um: float, workspace: CandidateWorkspace
) -> tuple[IntArray, IntArray, FloatArray]:
    """Find all `points` (k, M) within `radius_um` of each of `origins` (k, N); k is 2 or 3, values finite.

    Returns indptr, indices and squared distances (um^2) as views of the workspace.
    """
    w = workspace
    rows, count = origins.shape[1], points.shape[1]
    w.reserve(rows, count)
    index_points(points, np.zeros_like(points), count, tuple(w.grid))
    limit = radius_um * radius_um
    while gate_by_distance(origins, rows, limit, tuple(w.grid), tuple(w.found), points.shape[0]) == OVERFLOW:
        w.grow_candidates()
    return w.rows(rows)


@njit(cache=True, nogil=True, error_model="numpy")
def index_points(points: Any, variances: Any, count: int, grid: Any) -> None:
    """Sort `count` points (axes, M) and their variances into the cells of a `Grid`, given as a plain tuple."""
    grid = Grid(*grid)
    geometry, starts, order, cell_of, ordered = (
        grid.geometry,
        grid.starts,
        grid.order,
        grid.cell_of,
        grid.ordered,
    )
    axes = points.shape[0]
    if count == 0:
        geometry[:] = 0.0
        return
    x0 = points[0, 0]
    x1 = x0
    y0 = points[1, 0]
    y1 = y0
    for j in range(1, count):
        x0 = min(x0, points[0, j])
        x1 = max(x1, points[0, j])
        y0 = min(y0, points[1, j])
        y1 = max(y1, points[1, j])
    width = x1 - x0
    height = y1 - y0
    size = max(math.sqrt(width * height / count), max(width, height) / count)
    scale = 1.0 / size if size > SMALLEST_CELL_UM else 0.0
    columns = int(width * scale) + 1
    rows = int(height * scale) + 1
    geometry[0] = x0
    geometry[1] = y0
    geometry[2] = scale
    geometry[3] = columns
    geometry[4] = rows
    cells = columns * rows
    starts[: cells + 1] = 0
    for j in range(count):
        cell = int((points[1, j] - y0) * scale) * columns + int((points[0, j] - x0) * scale)
        cell_of[j] = cell
        starts[cell + 1] += 1
    for cell in range(cells):
        starts[cell + 1] += starts[cell]
    for j in range(count - 1, -1, -1):
        # Filling from the back leaves `starts[cell + 1]` at the first point of the cell.
        cell = cell_of[j]
        starts[cell + 1] -= 1
        at = starts[cell + 1]
        order[at] = j
        for a in range(axes):
            ordered[a, at] = points[a, j]
            ordered[3 + a, at] = variances[a, j]
    for cell in range(cells):
        starts[cell] = starts[cell + 1]
    starts[cells] = count


@njit(cache=True, nogil=True, error_model="numpy")
def clip_index(value: float, last: int) -> int:
    """An index of 0 to `last`; 0 for NaN."""
    if not value > 0.0:
        return 0
    if value > last:
        return last
    return int(value)


@njit(cache=True, nogil=True, error_model="numpy")
def gate_by_distance(origins: Any, rows: int, limit: float, grid: Any, found: Any, axes: int) -> int:
    """Fill the first `rows` of `found` (`Rows`) with all points of the `Grid` within sqrt(`limit`) of each origin.

    Costs are squared distances. Returns how many were found, `OVERFLOW` if they do not fit. `grid` and `found`
    are plain tuples.
    """
    grid, into = Grid(*grid), Rows(*found)
    geometry, starts, order, ordered = grid.geometry, grid.starts, grid.order, grid.ordered
    indptr, indices, costs = into.indptr, into.indices, into.costs
    count = 0
    indptr[0] = 0
    radius = math.sqrt(limit)
    scale = geometry[2]
    columns = int(geometry[3])
    lines = int(geometry[4])
    for i in range(rows):
        if columns > 0:
            x = origins[0, i]
            y = origins[1, i]
            first_column = clip_index((x - radius - geometry[0]) * scale, columns - 1)
            last_column = clip_index((x + radius - geometry[0]) * scale, columns - 1)
            first_line = clip_index((y - radius - geometry[1]) * scale, lines - 1)
            last_line = clip_index((y + radius - geometry[1]) * scale, lines - 1)
            for line in range(first_line, last_line + 1):
                begin = starts[line * columns + first_column]
                for k in range(begin, starts[line * columns + last_column + 1]):
                    square = (ordered[0, k] - x) ** 2 + (ordered[1, k] - y) ** 2
                    if axes == 3:
                        square += (ordered[2, k] - origins[2, i]) ** 2
                    if square <= limit:
                        if count == indices.size:
                            return OVERFLOW
                        indices[count] = order[k]
                        costs[count] = square
                        count += 1
        indptr[i + 1] = count
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def gate_by_chi_square(
    predictions: Any, rows: int, gate: Any, points: int, grid: Any, found: Any, axes: int, second: Any
) -> int:
    """Fill the first `rows` of `found` (`Rows`) with the detections whose d^2 is at most `gate.gamma`.

    The cost is d^2 + ln|S|, the negative log-likelihood of the innovation (Bar-Shalom 2001)
    without its constant. Entries that cost no less than leaving the track unlinked are left out. Returns how
    many were found, `OVERFLOW` if they do not fit. `Predictions`, `Gate`, `Grid` and `Rows` are given as plain
    tuples.

    Real innovations have tails: some particles are fast, some badly centred. For a proven track the density is
    therefore a mixture, (1 - e) N(S) + e N(k^2 S), and d^2 in the cost becomes
    -2 ln((1 - e) exp(-d^2 / 2) + e k^-axes exp(-d^2 / 2 k^2)). It matters only where new particles are rare enough
    for the no-link cost to allow it.

    `second` is about the other side of focus (`tracking.sides`): the second heights (M,) of detections, and height
    and variance of each track's other branch; empty arrays where there are none. The best pair of depths counts.
    """
    predictions, gate, grid, into = Predictions(*predictions), Gate(*gate), Grid(*grid), Rows(*found)
    geometry, starts, order, ordered = grid.geometry, grid.starts, grid.order, grid.ordered
    indptr, indices, costs = into.indptr, into.indices, into.costs
    x_hat, P, hits = predictions.x, predictions.P, predictions.hits
    second_z, branch_z, branch_P = second
    has_second = axes == 3 and second_z.size > 0
    gamma, no_link_cost, widest = gate.gamma, gate.no_link_cost, gate.widest
    tail = OUTLIERS / OUTLIER_SCALE**axes
    tail_bonus = 2.0 * math.log(tail) + 0.1
    squeeze = 0.5 / OUTLIER_SCALE**2
    count = 0
    indptr[0] = 0
    scale = geometry[2]
    columns = int(geometry[3])
    lines = int(geometry[4])
    for i in range(rows):
        if columns > 0 and points > 0:
            x = x_hat[0, i]
            y = x_hat[1, i]
            P_x = P[0, i]
            P_y = P[1, i]
            is_proven = hits[i] >= gate.proven
            limit = gamma
            if is_proven:
                least = math.log(P_x * P_y * P[2, i] if axes == 3 else P_x * P_y)
                bound = OUTLIER_SCALE**2 * min(no_link_cost + tail_bonus - least, gamma)
                limit = max(gamma, bound)
            reach_x = math.sqrt(limit * (P_x + widest[0]))
            reach_y = math.sqrt(limit * (P_y + widest[1]))
            first_column = clip_index((x - reach_x - geometry[0]) * scale, columns - 1)
            last_column = clip_index((x + reach_x - geometry[0]) * scale, columns - 1)
            first_line = clip_index((y - reach_y - geometry[1]) * scale, lines - 1)
            last_line = clip_index((y + reach_y - geometry[1]) * scale, lines - 1)
            for line in range(first_line, last_line + 1):
                begin = starts[line * columns + first_column]
                for k in range(begin, starts[line * columns + last_column + 1]):
                    S_x = P_x + ordered[3, k]
                    S_y = P_y + ordered[4, k]
                    d2 = (ordered[0, k] - x) ** 2 / S_x + (ordered[1, k] - y) ** 2 / S_y
                    determinant = S_x * S_y
                    if axes == 3:
                        S_z = P[2, i] + ordered[5, k]
                        d2_z = (ordered[2, k] - x_hat[2, i]) ** 2 / S_z
                        if has_second:
                            z, R_z = second_z[order[k]], ordered[5, k]
                            # a comparison with NaN is false
                            d2_z = min(d2_z, (z - x_hat[2, i]) ** 2 / S_z)
                            d2_z = min(d2_z, (ordered[2, k] - branch_z[i]) ** 2 / (branch_P[i] + R_z))
                            d2_z = min(d2_z, (z - branch_z[i]) ** 2 / (branch_P[i] + R_z))
                        d2 += d2_z
                        determinant *= S_z
                    if d2 > limit:
                        continue
                    cost = math.log(determinant)
                    if is_proven:
                        core = (1.0 - OUTLIERS) * math.exp(-0.5 * d2)
                        cost -= 2.0 * math.log(core + tail * math.exp(-squeeze * d2))
                    else:
                        cost += d2
                    if cost >= no_link_cost:
                        continue
                    if count == indices.size:
                        return OVERFLOW
                    indices[count] = order[k]
                    costs[count] = cost
                    count += 1
        indptr[i + 1] = count
    return count
