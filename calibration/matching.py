"""Matching of detections to the true particles, frame by frame.

Matching is the assignment of most pairs within the gates, and among those of the least total distance
(Chenouard et al. 2014, Nature Methods 11, 281, pair points in the same way). Everything in um.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from stream.errors import ConfigurationError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Table = Mapping[str, npt.ArrayLike]

GATE_XY_UM = 4.0
GATE_Z_UM = 30.0
AXES = ("x", "y", "z")


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """All N true particles with their detections, and the false detections.

    `position_um` (3, N) is the truth, `neighbour_um` (N,) the distance in the plane to the nearest other true
    particle of the frame, infinite where there is none. `error_um` (3, N) is found minus true, `sigma_um`
    (3, N) the standard error; both are NaN where the particle was not found (`found` (N,) is False) or no standard
    error was given. `false_um` (K,) is the distance in the plane from each false detection to the nearest
    true particle. `frames` counts those with a true particle or a detection. Without `depth` none of the
    positions of the truth or of the detections has a z.
    """

    frames: int
    gate_xy_um: float
    gate_z_um: float | None
    depth: bool
    position_um: FloatArray
    neighbour_um: FloatArray
    found: BoolArray
    error_um: FloatArray
    sigma_um: FloatArray
    false_um: FloatArray

    @property
    def detections(self) -> int:
        """Number of detections, true and false ones."""
        return int(self.found.sum()) + self.false_um.size


def match_tables(
    truth: Table, found: Table, *, gate_xy_um: float = GATE_XY_UM, gate_z_um: float | None = GATE_Z_UM
) -> Matched:
    """Match `found` to `truth`, frame by frame.

    Both have the columns `frame, x_um, y_um, z_um`, `found` may have `sigma_x_um, sigma_y_um, sigma_z_um`.
    Pairs are within `gate_xy_um` in the plane and `gate_z_um` in depth; depth plays no part where the gate is
    None or all depths of one of the tables are missing (NaN). Raises `ConfigurationError` for tables without
    these columns or with columns of different lengths.
    """
    true_rows = _columns(truth, "the truth")
    found_rows = _columns(found, "the detections")
    if not (gate_xy_um > 0 and (gate_z_um is None or gate_z_um > 0)):
        raise ConfigurationError(f"gates must be positive, not {gate_xy_um} and {gate_z_um}")
    position_um, measured_um = _stacked(true_rows, "{}_um"), _stacked(found_rows, "{}_um")
    depth = bool(np.isfinite(position_um[2]).any() and np.isfinite(measured_um[2]).any())
    gate_z = gate_z_um if depth else None
    frames = np.unique(np.concatenate([true_rows["frame"], found_rows["frame"]]))
    neighbour_um = np.full(position_um.shape[1], np.inf)
    false_um = np.full(measured_um.shape[1], np.inf)
    partner = np.full(position_um.shape[1], -1)
    taken = np.zeros(measured_um.shape[1], bool)
    for mine, theirs in zip(
        _rows_of(true_rows["frame"], frames), _rows_of(found_rows["frame"], frames), strict=True
    ):
        true_points, found_points = position_um[:, mine].T, measured_um[:, theirs].T
        neighbour_um[mine] = nearest_neighbour(true_points[:, :2])
        if mine.size:
            false_um[theirs] = KDTree(true_points[:, :2]).query(found_points[:, :2])[0]
        rows, columns = match(true_points, found_points, gate_xy_um, gate_z)
        partner[mine[rows]] = theirs[columns]
        taken[theirs[columns]] = True
    known = partner >= 0
    error_um, sigma_um = np.full_like(position_um, np.nan), np.full_like(position_um, np.nan)
    error_um[:, known] = measured_um[:, partner[known]] - position_um[:, known]
    sigma_um[:, known] = _stacked(found_rows, "sigma_{}_um")[:, partner[known]]
    return Matched(
        frames=int(frames.size),
        gate_xy_um=gate_xy_um,
        gate_z_um=gate_z,
        depth=depth,
        position_um=position_um,
        neighbour_um=neighbour_um,
        found=known,
        error_um=error_um,
        sigma_um=sigma_um,
        false_um=false_um[~taken],
    )


def match(
    truth: FloatArray, found: FloatArray, gate_xy_um: float, gate_z_um: float | None
) -> tuple[IntArray, IntArray]:
    """Pair points (N, 3) with (M, 3): most pairs within the gates first, then least total distance.

    The distance of a pair is that in the plane in units of its gate, with that in depth in units of its own.
    Returns the indices of the partners, (P,) each. A point whose depth is NaN pairs with nothing where there
    is a gate in depth. Solved per group of points that the gates connect (scipy's exact assignment).
    """
    if not truth.shape[0] or not found.shape[0]:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    candidates = KDTree(truth[:, :2]).sparse_distance_matrix(
        KDTree(found[:, :2]), gate_xy_um, output_type="ndarray"
    )
    i, j = candidates["i"].astype(np.int64), candidates["j"].astype(np.int64)
    squared = (candidates["v"] / gate_xy_um) ** 2
    if gate_z_um is not None:
        apart = np.abs(truth[i, 2] - found[j, 2]) / gate_z_um
        near = apart <= 1
        i, j, squared = i[near], j[near], squared[near] + apart[near] ** 2
    return assigned(i, j, np.sqrt(squared), truth.shape[0], found.shape[0])


def assigned(
    i: IntArray, j: IntArray, cost: FloatArray, count: int, others: int
) -> tuple[IntArray, IntArray]:
    """The pairs to keep of the candidates `i` (of `count`) with `j` (of `others`): most pairs, then least cost.

    Costs (K,) are below 2. Solved per group of points that candidates connect (scipy's exact assignment).
    """
    links = coo_array((np.ones(i.size), (i, count + j)), shape=(count + others,) * 2)
    label = connected_components(links, directed=False)[1][i]
    rows: list[IntArray] = []
    columns: list[IntArray] = []
    for group in np.unique(label):
        inside = label == group
        own, own_index = np.unique(i[inside], return_inverse=True)
        other, other_index = np.unique(j[inside], return_inverse=True)
        # Leaving a pair out costs more than all pairs of the group together, so more pairs always win.
        no_pair = 1.0 + 2.0 * min(own.size, other.size)
        costs = np.full((own.size, other.size), no_pair)
        costs[own_index, other_index] = cost[inside]
        left, right = linear_sum_assignment(costs)
        paired = costs[left, right] < no_pair
        rows.append(own[left[paired]])
        columns.append(other[right[paired]])
    if not rows:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return np.concatenate(rows), np.concatenate(columns)


def nearest_neighbour(points: FloatArray) -> FloatArray:
    """Return each point's distance to the nearest other one, (N,), infinite for a single point."""
    if points.shape[0] < 2:
        return np.full(points.shape[0], np.inf)
    distance, _ = KDTree(points).query(points, k=2)
    return np.asarray(distance, dtype=np.float64)[:, 1]


def _columns(table: Table, name: str) -> dict[str, FloatArray]:
    columns: dict[str, FloatArray] = {}
    for column in ("frame", "x_um", "y_um", "z_um"):
        if column not in table:
            if column != "z_um":
                raise ConfigurationError(f"{name} has no column {column}")
            columns[column] = np.full(columns["x_um"].shape, np.nan)
            continue
        columns[column] = np.asarray(table[column], dtype=np.float64)
    for axis in AXES:
        key = f"sigma_{axis}_um"
        columns[key] = (
            np.asarray(table[key], dtype=np.float64)
            if key in table
            else np.full(columns["frame"].shape, np.nan)
        )
    if len({column.shape for column in columns.values()}) != 1 or columns["frame"].ndim != 1:
        raise ConfigurationError(f"the columns of {name} differ in length")
    if not all(np.isfinite(columns[column]).all() for column in ("frame", "x_um", "y_um")):
        raise ConfigurationError(f"{name} has rows without frame, x or y")
    return columns


def _rows_of(frame: FloatArray, frames: FloatArray) -> list[IntArray]:
    """Return the rows of each of `frames`, which rise."""
    order = np.argsort(frame, kind="stable")
    starts = np.searchsorted(frame[order], frames, side="left")
    return np.split(order, starts[1:])


def _stacked(columns: dict[str, FloatArray], name: str) -> FloatArray:
    return np.stack([columns[name.format(axis)] for axis in AXES])
