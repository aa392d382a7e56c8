"""How well a detector finds particles: detections matched to a known truth, frame by frame.

Matching is the assignment of most pairs within the gates, and among those of the least total distance
(Chenouard et al. 2014, Nature Methods 11, 281, pair points in the same way). Everything in um.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from stream.errors import ConfigurationError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Table = Mapping[str, npt.ArrayLike]

GATE_XY_UM = 4.0
GATE_Z_UM = 30.0
LONE_UM = 28.0
DISTANCE_BINS_UM = (0.0, 2.0, 4.0, 8.0, 16.0, 28.0, math.inf)
AXES = ("x", "y", "z")


@dataclass(frozen=True, slots=True)
class AxisErrors:
    """Errors, found minus true, of the matched particles along one axis, um.

    `calibration` is the root mean square of error / stated standard error: 1 where those are right, above 1
    where they are too small. NaN where there is nothing to compute it from.
    """

    bias_um: float
    rms_um: float
    median_um: float
    calibration: float


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The score of some of the true particles: how many they are, and which part of them was `missed`.

    `from_um` to `to_um` is the range of distances to the nearest true neighbour that they were chosen by.
    `errors` holds `AxisErrors` for x, y and, where depth was measured, z.
    """

    from_um: float
    to_um: float
    particles: int
    missed: float
    errors: dict[str, AxisErrors]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The score of a table of detections.

    `missed` is the part of the true particles without a detection, `false` the part of the detections without
    a true particle. `lone` is the score of the particles without a neighbour within `lone_um`, `by_distance`
    that of all, by the distance of their nearest neighbour.
    """

    frames: int
    true_particles: int
    detections: int
    matched: int
    missed: float
    false: float
    depth: bool
    gate_xy_um: float
    gate_z_um: float | None
    errors: dict[str, AxisErrors]
    lone: GroupScore
    by_distance: list[GroupScore]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain dictionaries, lists and numbers; what is not a finite number becomes None."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def evaluate(
    truth: Table,
    found: Table,
    *,
    gate_xy_um: float = GATE_XY_UM,
    gate_z_um: float | None = GATE_Z_UM,
    lone_um: float = LONE_UM,
    distance_bins_um: tuple[float, ...] = DISTANCE_BINS_UM,
) -> Evaluation:
    """Match `found` to `truth` and score it.

    Both have the columns `frame, x_um, y_um, z_um`, `found` may have `sigma_x_um, sigma_y_um, sigma_z_um`.
    Pairs are within `gate_xy_um` in the plane and `gate_z_um` in depth; depth plays no part where the gate is
    None or all depths of one of the tables are missing (NaN). Raises `ConfigurationError` for tables without
    these columns or with columns of different lengths.
    """
    true_rows = _columns(truth, "the truth")
    found_rows = _columns(found, "the detections")
    if not (gate_xy_um > 0 and (gate_z_um is None or gate_z_um > 0)):
        raise ConfigurationError(f"gates must be positive, not {gate_xy_um} and {gate_z_um}")
    depth = bool(np.isfinite(true_rows["z_um"]).any() and np.isfinite(found_rows["z_um"]).any())
    gate_z = gate_z_um if depth else None
    frames = np.unique(np.concatenate([true_rows["frame"], found_rows["frame"]]))
    neighbour_um = np.full(true_rows["frame"].size, np.inf)
    pair_true: list[IntArray] = []
    pair_found: list[IntArray] = []
    true_of = _rows_of(true_rows["frame"], frames)
    found_of = _rows_of(found_rows["frame"], frames)
    for mine, theirs in zip(true_of, found_of, strict=True):
        true_points = _points(true_rows, mine)
        neighbour_um[mine] = nearest_neighbour(true_points[:, :2])
        rows, columns = match(true_points, _points(found_rows, theirs), gate_xy_um, gate_z)
        pair_true.append(mine[rows])
        pair_found.append(theirs[columns])
    rows = np.concatenate(pair_true) if pair_true else np.empty(0, np.int64)
    columns = np.concatenate(pair_found) if pair_found else np.empty(0, np.int64)

    def group(low_um: float, high_um: float) -> GroupScore:
        chosen = (neighbour_um >= low_um) & (neighbour_um < high_um)
        if high_um == math.inf:
            chosen |= np.isinf(neighbour_um)
        inside = chosen[rows]
        total = int(chosen.sum())
        return GroupScore(
            from_um=low_um,
            to_um=high_um,
            particles=total,
            missed=1 - int(inside.sum()) / total if total else math.nan,
            errors=_errors(true_rows, found_rows, rows[inside], columns[inside], depth),
        )

    total_true, total_found = true_rows["frame"].size, found_rows["frame"].size
    return Evaluation(
        frames=int(frames.size),
        true_particles=total_true,
        detections=total_found,
        matched=int(rows.size),
        missed=1 - rows.size / total_true if total_true else math.nan,
        false=1 - rows.size / total_found if total_found else math.nan,
        depth=depth,
        gate_xy_um=gate_xy_um,
        gate_z_um=gate_z,
        errors=_errors(true_rows, found_rows, rows, columns, depth),
        lone=group(lone_um, math.inf),
        by_distance=[group(low, high) for low, high in pairwise(distance_bins_um)],
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
    cost = np.sqrt(squared)
    count = truth.shape[0]
    links = coo_array((np.ones(i.size), (i, count + j)), shape=(count + found.shape[0],) * 2)
    label = connected_components(links, directed=False)[1][i]
    rows: list[IntArray] = []
    columns: list[IntArray] = []
    for group in np.unique(label):
        inside = label == group
        own, own_index = np.unique(i[inside], return_inverse=True)
        other, other_index = np.unique(j[inside], return_inverse=True)
        # No pair is dearer than all pairs of the group together, so that more pairs always win.
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


def _points(columns: dict[str, FloatArray], rows: IntArray) -> FloatArray:
    return np.column_stack([columns[f"{axis}_um"][rows] for axis in AXES])


def _errors(
    truth: dict[str, FloatArray], found: dict[str, FloatArray], rows: IntArray, columns: IntArray, depth: bool
) -> dict[str, AxisErrors]:
    result = {}
    for axis in AXES if depth else AXES[:2]:
        error = found[f"{axis}_um"][columns] - truth[f"{axis}_um"][rows]
        sigma = found[f"sigma_{axis}_um"][columns]
        known = np.isfinite(error)
        stated = known & (sigma > 0) & np.isfinite(sigma)
        scaled = error[stated] / sigma[stated]
        error = error[known]
        result[axis] = AxisErrors(
            bias_um=float(error.mean()) if error.size else math.nan,
            rms_um=float(np.sqrt((error**2).mean())) if error.size else math.nan,
            median_um=float(np.median(np.abs(error))) if error.size else math.nan,
            calibration=float(np.sqrt((scaled**2).mean())) if scaled.size else math.nan,
        )
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
