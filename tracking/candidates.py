"""Which detections a track may take: a grid hash over the image and gates, as compressed candidate rows.

The grid lies in x and y with about one detection a cell; z is checked, not hashed, because the depth a
microscope sees holds few layers of particles.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from tracking.assignment import IntArray

FloatArray = npt.NDArray[np.float64]

OVERFLOW = -1
CELLS_PER_POINT = 3
SMALLEST_CELL_UM = 1e-9
OUTLIERS = 0.05
OUTLIER_SCALE = 3.0


class CandidateWorkspace:
    """The grid and the compressed rows, grown geometrically and kept between calls."""

    def __init__(self, rows: int = 256, points: int = 256, candidates: int = 1024) -> None:
        self.geometry: FloatArray = np.zeros(5)
        self.indptr: IntArray = np.zeros(rows + 1, np.int32)
        self._grow_points(points)
        self.grow_candidates(candidates)

    def reserve(self, rows: int, points: int) -> None:
        """Make room for this many tracks and detections."""
        if rows + 1 > self.indptr.size:
            self.indptr = np.zeros(max(rows + 1, 2 * self.indptr.size), np.int32)
        if points > self.order.size:
            self._grow_points(max(points, 2 * self.order.size))

    def _grow_points(self, points: int) -> None:
        self.order: IntArray = np.empty(points, np.int32)
        self.cell_of: IntArray = np.empty(points, np.int32)
        self.starts: IntArray = np.empty(CELLS_PER_POINT * points + 16, np.int32)
        self.sorted: FloatArray = np.empty((6, points))

    def grow_candidates(self, candidates: int) -> None:
        """Make room for this many candidates in all rows together."""
        self.indices: IntArray = np.empty(candidates, np.int32)
        self.costs: FloatArray = np.empty(candidates)

    def rows(self, count: int) -> tuple[IntArray, IntArray, FloatArray]:
        """Views of the compressed rows last found: indptr (count + 1,), indices and costs (n,)."""
        indptr = self.indptr[: count + 1]
        return indptr, self.indices[: indptr[-1]], self.costs[: indptr[-1]]


def within_distance(
    origins: FloatArray, points: FloatArray, radius_um: float, workspace: CandidateWorkspace
) -> tuple[IntArray, IntArray, FloatArray]:
    """Find all `points` (k, M) within `radius_um` of each of `origins` (k, N); k is 2 or 3, values finite.

    Returns indptr, indices and squared distances (um^2) as views of the workspace.
    """
    w = workspace
    rows, count = origins.shape[1], points.shape[1]
    w.reserve(rows, count)
    index_points(points, np.zeros_like(points), count, w.geometry, w.starts, w.order, w.cell_of, w.sorted)
    limit = radius_um * radius_um
    while True:
        found = gate_by_distance(
            origins, rows, limit, w.geometry, w.starts, w.order, w.sorted, w.indptr, w.indices, w.costs,
            points.shape[0],
        )  # fmt: skip
        if found != OVERFLOW:
            return w.rows(rows)
        w.grow_candidates(2 * w.indices.size)


@njit(cache=True, nogil=True, error_model="numpy")
def index_points(points, variances, count, geometry, starts, order, cell_of, ordered):  # type: ignore[no-untyped-def]
    """Sort `count` points (axes, M) and their variances into cells.

    Fills `geometry` (x0, y0, 1 / cell size, columns, rows), `starts` (first point of each cell), `order`
    (original index) and `ordered` (x, y, z and their variances in that order; z rows only with three axes).
    """
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
def _clip(value, last):  # type: ignore[no-untyped-def]
    if not value > 0.0:
        return 0
    if value > last:
        return last
    return int(value)


@njit(cache=True, nogil=True, error_model="numpy")
def gate_by_distance(  # type: ignore[no-untyped-def]
    origins, rows, limit, geometry, starts, order, ordered, indptr, indices, costs, axes
):  # fmt: skip
    """Fill rows with all points whose squared distance is at most `limit`; OVERFLOW if they do not fit."""
    found = 0
    indptr[0] = 0
    radius = math.sqrt(limit)
    scale = geometry[2]
    columns = int(geometry[3])
    lines = int(geometry[4])
    for i in range(rows):
        if columns > 0:
            x = origins[0, i]
            y = origins[1, i]
            first_column = _clip((x - radius - geometry[0]) * scale, columns - 1)
            last_column = _clip((x + radius - geometry[0]) * scale, columns - 1)
            first_line = _clip((y - radius - geometry[1]) * scale, lines - 1)
            last_line = _clip((y + radius - geometry[1]) * scale, lines - 1)
            for line in range(first_line, last_line + 1):
                begin = starts[line * columns + first_column]
                for k in range(begin, starts[line * columns + last_column + 1]):
                    square = (ordered[0, k] - x) ** 2 + (ordered[1, k] - y) ** 2
                    if axes == 3:
                        square += (ordered[2, k] - origins[2, i]) ** 2
                    if square <= limit:
                        if found == indices.size:
                            return OVERFLOW
                        indices[found] = order[k]
                        costs[found] = square
                        found += 1
        indptr[i + 1] = found
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def gate_by_chi_square(  # type: ignore[no-untyped-def]
    predicted, variances, hits, proven, rows, gate, no_link_cost,
    geometry, starts, order, ordered, points, widest, indptr, indices, costs, axes,
):  # fmt: skip
    """Fill rows with the detections whose Mahalanobis distance squared d^2 is at most `gate`.

    `predicted` and `variances` are (3, rows); `widest` (3,) holds the largest variance of a detection in each
    axis. The cost is d^2 + ln|S| (Bar-Shalom), S = predicted variance + the detection's own; entries that
    cost no less than leaving the track unlinked are left out. OVERFLOW if they do not fit.

    Real innovations have tails: some particles are fast, some badly centred. For a track of at least
    `proven` `hits` the density is therefore a mixture, (1 - e) N(S) + e N(k^2 S), with e = 5 % and k = 3,
    and d^2 in the cost becomes -2 ln((1 - e) exp(-d^2 / 2) + e k^-axes exp(-d^2 / 2 k^2)). It matters only
    where new particles are rare enough for the no-link cost to allow it.
    """
    tail = OUTLIERS / OUTLIER_SCALE**axes
    tail_bonus = 2.0 * math.log(tail) + 0.1
    squeeze = 0.5 / OUTLIER_SCALE**2
    found = 0
    indptr[0] = 0
    scale = geometry[2]
    columns = int(geometry[3])
    lines = int(geometry[4])
    for i in range(rows):
        if columns > 0 and points > 0:
            x = predicted[0, i]
            y = predicted[1, i]
            vx = variances[0, i]
            vy = variances[1, i]
            is_proven = hits[i] >= proven
            limit = gate
            if is_proven:
                least = math.log(vx * vy * variances[2, i] if axes == 3 else vx * vy)
                bound = OUTLIER_SCALE**2 * min(no_link_cost + tail_bonus - least, gate)
                limit = max(gate, bound)
            reach_x = math.sqrt(limit * (vx + widest[0]))
            reach_y = math.sqrt(limit * (vy + widest[1]))
            first_column = _clip((x - reach_x - geometry[0]) * scale, columns - 1)
            last_column = _clip((x + reach_x - geometry[0]) * scale, columns - 1)
            first_line = _clip((y - reach_y - geometry[1]) * scale, lines - 1)
            last_line = _clip((y + reach_y - geometry[1]) * scale, lines - 1)
            for line in range(first_line, last_line + 1):
                begin = starts[line * columns + first_column]
                for k in range(begin, starts[line * columns + last_column + 1]):
                    sx = vx + ordered[3, k]
                    sy = vy + ordered[4, k]
                    square = (ordered[0, k] - x) ** 2 / sx + (ordered[1, k] - y) ** 2 / sy
                    determinant = sx * sy
                    if axes == 3:
                        sz = variances[2, i] + ordered[5, k]
                        square += (ordered[2, k] - predicted[2, i]) ** 2 / sz
                        determinant *= sz
                    if square > limit:
                        continue
                    cost = math.log(determinant)
                    if is_proven:
                        core = (1.0 - OUTLIERS) * math.exp(-0.5 * square)
                        cost -= 2.0 * math.log(core + tail * math.exp(-squeeze * square))
                    else:
                        cost += square
                    if cost >= no_link_cost:
                        continue
                    if found == indices.size:
                        return OVERFLOW
                    indices[found] = order[k]
                    costs[found] = cost
                    found += 1
        indptr[i + 1] = found
    return found
