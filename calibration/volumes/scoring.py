"""Scores of detections in volumes: F1, precision, recall, errors along each axis, and how true the stated errors
are.

Matched volume by volume: most pairs within a gate in 3D, and of those the least total distance (Chenouard et al.
2014, Nature Methods 11, 281). The gate is a sphere, in um or in voxels; in voxels of unequal edges an ellipsoid.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from calibration.evaluation import pulls, within
from calibration.json_values import plain
from calibration.matching import Table, assigned, nearest_neighbour
from engines.robust_sigma import SIGMA_OF_MAD
from stream.errors import ConfigurationError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

AXES = ("x", "y", "z")
MOST_VALUES = 12
"""A column with no more different values is split by them, another one into quarters."""
NEIGHBOURS = (0.0, 0.5, 1.0, 2.0, math.inf)
"""Distances of neighbours that are told apart, in gates."""


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """All N true particles and M detections; positions and errors (3, N) along x, y, z in um.

    `found` (N,) tells which particles were detected, `true` (M,) which detections are true. `neighbour` (N,) is the
    distance of the nearest other true particle, in gates.
    """

    frame: IntArray
    detection_frame: IntArray
    position_um: FloatArray
    error_um: FloatArray
    sigma_um: FloatArray
    found: BoolArray
    true: BoolArray
    neighbour: FloatArray
    columns: dict[str, FloatArray]


@dataclass(frozen=True, slots=True)
class AxisScore:
    """Errors, found minus true, along one axis; `_voxels` NaN where the voxel is not known.

    `true_over_stated` is the root mean square of error / standard error, `true_over_stated_robust` 1.4826 times the
    median of its size: both 1 where the standard errors are right and errors Gaussian.
    """

    bias_um: float
    rms_um: float
    rms_voxels: float
    true_over_stated: float
    true_over_stated_robust: float


@dataclass(frozen=True, slots=True)
class PartScore:
    """The score of some of the particles, `from_value` to `to_value`; NaN what cannot be told.

    `detections` are all of the volumes with such particles. Precision and F1 of a part are known where it is made
    of whole volumes, since a false detection belongs to none of the particles.
    """

    name: str
    from_value: float
    to_value: float
    volumes: int
    particles: int
    detections: int
    matched: int
    recall: float
    precision: float
    f1: float
    rmse_um: float
    rmse_voxels: float
    axes: dict[str, AxisScore]


@dataclass(frozen=True, slots=True)
class VolumeScore:
    """The score of all particles, and of parts of them.

    `f1_of_volumes` and `rmse_voxels_of_volumes` (`rmse_um_of_volumes`) are means over the volumes, as papers give
    them.
    """

    gate: float
    gate_unit: str
    all: PartScore
    f1_of_volumes: float
    rmse_um_of_volumes: float
    rmse_voxels_of_volumes: float
    by_snr: list[PartScore]
    by_brightness: list[PartScore]
    by_density: list[PartScore]
    by_neighbour: list[PartScore]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers; what is not finite becomes None."""
        values: dict[str, Any] = plain(asdict(self))
        return values


def match_volumes(truth: Table, found: Table, gate: float, unit_um: tuple[float, float, float]) -> Matches:
    """Match `found` to `truth` with a gate in units of `unit_um` (x, y, z): 1 um, or the edges of a voxel.

    Raises `ConfigurationError` for tables without frame, x, y and z.
    """
    mine, theirs = _points(truth, "the truth"), _points(found, "the detections")
    scale = np.asarray(unit_um)[:, None] * gate
    true_frame, found_frame = mine[3].astype(np.int64), theirs[3].astype(np.int64)
    count = len(true_frame)
    partner = np.full(count, -1)
    neighbour = np.full(count, np.inf)
    for frame in np.union1d(true_frame, found_frame):
        rows, others = np.flatnonzero(true_frame == frame), np.flatnonzero(found_frame == frame)
        points = (mine[:3, rows] / scale).T
        if rows.size > 1:
            neighbour[rows] = nearest_neighbour(points)
        if not (rows.size and others.size):
            continue
        near = KDTree(points).sparse_distance_matrix(
            KDTree((theirs[:3, others] / scale).T), 1.0, output_type="ndarray"
        )
        left, right = assigned(
            near["i"].astype(np.int64), near["j"].astype(np.int64), near["v"], rows.size, others.size
        )
        partner[rows[left]] = others[right]
    known = partner >= 0
    true = np.zeros(theirs.shape[1], bool)
    true[partner[known]] = True
    error, sigma = np.full((3, count), np.nan), np.full((3, count), np.nan)
    error[:, known] = theirs[:3, partner[known]] - mine[:3, known]
    for row, axis in enumerate(AXES):
        if f"sigma_{axis}_um" in found:
            sigma[row, known] = np.asarray(found[f"sigma_{axis}_um"], np.float64)[partner[known]]
    columns = {name: np.asarray(truth[name], np.float64) for name in ("snr", "brightness") if name in truth}
    return Matches(true_frame, found_frame, mine[:3], error, sigma, known, true, neighbour, columns)


def score_volumes(
    matches: Matches, gate: float, gate_unit: str, voxel_um: tuple[float, float, float] | None = None
) -> VolumeScore:
    """Score what was matched; `voxel_um` (x, y, z) gives the errors in voxels too."""
    everything = np.ones(matches.found.size, bool)
    frames = np.union1d(matches.frame, matches.detection_frame)
    of_each = [_part(matches, "", 0, 0, matches.frame == frame, voxel_um, frame) for frame in frames]
    per_frame = {int(f): int(n) for f, n in zip(*np.unique(matches.frame, return_counts=True), strict=True)}
    density = np.array([per_frame[int(f)] for f in matches.frame], np.float64)
    neighbours = [
        _part(matches, "neighbour", low, high, within(matches.neighbour, low, high), voxel_um)
        for low, high in pairwise(NEIGHBOURS)
    ]
    return VolumeScore(
        gate=gate,
        gate_unit=gate_unit,
        all=_part(matches, "all", -math.inf, math.inf, everything, voxel_um, whole=True),
        f1_of_volumes=_mean([one.f1 for one in of_each]),
        rmse_um_of_volumes=_mean([one.rmse_um for one in of_each]),
        rmse_voxels_of_volumes=_mean([one.rmse_voxels for one in of_each]),
        by_snr=_split(matches, "snr", matches.columns.get("snr"), voxel_um),
        by_brightness=_split(matches, "brightness", matches.columns.get("brightness"), voxel_um),
        by_density=_split(matches, "particles", density, voxel_um),
        by_neighbour=[one for one in neighbours if one.particles],
    )


def _split(
    matches: Matches, name: str, values: FloatArray | None, voxel_um: tuple[float, float, float] | None
) -> list[PartScore]:
    """A part for each value, or for each quarter of them; none where all are alike or unknown."""
    if values is None or not np.isfinite(values).any():
        return []
    known = values[np.isfinite(values)]
    different = np.unique(known)
    if different.size == 1:
        return []
    if different.size <= MOST_VALUES:
        return [_part(matches, name, value, value, values == value, voxel_um) for value in different]
    edges = np.unique(np.quantile(known, (0, 0.25, 0.5, 0.75, 1)))
    edges[-1] = np.nextafter(edges[-1], np.inf)
    return [
        _part(matches, name, low, high, within(values, low, high), voxel_um)
        for low, high in pairwise(edges.tolist())
    ]


def _part(
    matches: Matches,
    name: str,
    low: float,
    high: float,
    chosen: BoolArray,
    voxel_um: tuple[float, float, float] | None,
    frame: int | None = None,
    *,
    whole: bool = False,
) -> PartScore:
    """The score of the `chosen` particles; all detections are theirs with `whole`, or those of one `frame`."""
    if whole:
        mine = np.ones(matches.true.size, bool)
    elif frame is not None:
        mine = matches.detection_frame == frame
    else:
        mine = np.isin(matches.detection_frame, matches.frame[chosen])
        whole = not np.isin(matches.frame[~chosen], matches.frame[chosen]).any()
    whole = whole or frame is not None
    particles, matched, detections = int(chosen.sum()), int(matches.found[chosen].sum()), int(mine.sum())
    error = matches.error_um[:, chosen & matches.found]
    voxel = np.full(3, np.nan) if voxel_um is None else np.asarray(voxel_um)
    return PartScore(
        name=name,
        from_value=float(low),
        to_value=float(high),
        volumes=int(np.unique(matches.frame[chosen]).size) if name != "all" else _volumes(matches),
        particles=particles,
        detections=detections,
        matched=matched,
        recall=matched / particles if particles else math.nan,
        precision=matched / detections if whole and detections else math.nan,
        f1=2 * matched / (particles + detections) if whole and particles + detections else math.nan,
        rmse_um=_rms(np.sqrt((error**2).sum(axis=0))),
        rmse_voxels=_rms(np.sqrt(((error / voxel[:, None]) ** 2).sum(axis=0))),
        axes={
            axis: _axis(error[row], matches.sigma_um[row, chosen & matches.found], float(voxel[row]))
            for row, axis in enumerate(AXES)
        },
    )


def _volumes(matches: Matches) -> int:
    return int(np.union1d(matches.frame, matches.detection_frame).size)


def _axis(error: FloatArray, sigma: FloatArray, voxel_um: float) -> AxisScore:
    scaled = pulls(error, sigma)
    return AxisScore(
        bias_um=float(error.mean()) if error.size else math.nan,
        rms_um=_rms(error),
        rms_voxels=_rms(error) / voxel_um,
        true_over_stated=_rms(scaled),
        true_over_stated_robust=SIGMA_OF_MAD * float(np.median(np.abs(scaled))) if scaled.size else math.nan,
    )


def _rms(values: FloatArray) -> float:
    return float(np.sqrt((values**2).mean())) if values.size else math.nan


def _mean(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def _points(table: Table, name: str) -> FloatArray:
    """x, y, z and frame (4, N)."""
    for column in ("frame", "x_um", "y_um", "z_um"):
        if column not in table:
            raise ConfigurationError(f"{name} has no column {column}")
    points = np.stack([np.asarray(table[column], np.float64) for column in ("x_um", "y_um", "z_um", "frame")])
    if not np.isfinite(points).all():
        raise ConfigurationError(f"{name} has rows without frame, x, y or z; volumes need all of them")
    return points
