"""Scores of a detector: recall (1 - missed), precision (1 - false), errors by neighbour and depth.

The scores are those of section 3 of Franchini & Krevor (2020). Everything in um.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.json_values import plain
from calibration.matching import (
    AXES,
    GATE_XY_UM,
    GATE_Z_UM,
    Matched,
    Table,
    match_tables,
)
from engines.robust_sigma import SIGMA_OF_MAD

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LONE_UM = 28.0
DISTANCE_BINS_UM = (0.0, 2.0, 4.0, 8.0, 16.0, 28.0, math.inf)
MOST_DEPTH_BINS, FEWEST_DEPTH_BINS, PARTICLES_A_BIN = 34, 4, 20
FEWEST_IN_A_PART = 5
COVERED = 0.5


@dataclass(frozen=True, slots=True)
class AxisErrors:
    """Errors, found minus true, of the matched particles along one axis, um.

    `calibration` is the root mean square of error / standard error: 1 where the standard errors are right,
    above 1 where they are too small. `calibration_robust` is the same for the typical particle, unaffected by a
    few large errors: 1.4826 times the median of |error / standard error|, which is 1 where errors are Gaussian
    and the standard errors right. NaN where there are no particles to compute it from.
    """

    bias_um: float
    rms_um: float
    median_um: float
    calibration: float
    calibration_robust: float


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The score of some of the true particles: how many they are, and which part of them was `missed`.

    `from_um` to `to_um` is the range that they were chosen by: of distances to the nearest true neighbour, or
    of depths. `errors` holds `AxisErrors` for x, y and, where depth was measured, z.
    """

    from_um: float
    to_um: float
    particles: int
    missed: float
    errors: dict[str, AxisErrors]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The score of a table of detections.

    `missed` (1 - recall) is the part of the true particles without a detection, `false` (1 - precision) the
    part of the detections without a true particle. `lone` is the score of the particles without a neighbour
    within `lone_um`, `by_distance` that of all, by the distance of their nearest neighbour. `by_depth` is that
    of all by their true depth, in equal parts of the range of true depths, empty where these are not known or
    too few. `depth_covered` is the part of that range in which at least half of the largest recall (1 - missed)
    of a part is reached; parts with fewer than five particles do not count.
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
    by_depth: list[GroupScore]
    depth_covered: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain dictionaries, lists and numbers; what is not a finite number becomes None."""
        values: dict[str, Any] = plain(asdict(self))
        return values


def evaluate(
    truth: Table,
    found: Table,
    *,
    gate_xy_um: float = GATE_XY_UM,
    gate_z_um: float | None = GATE_Z_UM,
    lone_um: float = LONE_UM,
    distance_bins_um: tuple[float, ...] = DISTANCE_BINS_UM,
) -> Evaluation:
    """Match `found` to `truth` as `match_tables` does, and score it; raises what that raises."""
    matched = match_tables(truth, found, gate_xy_um=gate_xy_um, gate_z_um=gate_z_um)
    return score(matched, lone_um=lone_um, distance_bins_um=distance_bins_um)


def score(
    matched: Matched, *, lone_um: float = LONE_UM, distance_bins_um: tuple[float, ...] = DISTANCE_BINS_UM
) -> Evaluation:
    """Score what was found of each true particle; `lone_um` and the bins are distances of neighbours."""
    neighbour_um, depth_um = matched.neighbour_um, matched.position_um[2]
    by_depth = [
        _group(matched, within(depth_um, low, high), low, high)
        for low, high in pairwise(depth_edges(depth_um).tolist())
    ]
    true_particles, detections = matched.found.size, matched.detections
    return Evaluation(
        frames=matched.frames,
        true_particles=true_particles,
        detections=detections,
        matched=int(matched.found.sum()),
        missed=_missed(matched.found),
        false=matched.false_um.size / detections if detections else math.nan,
        depth=matched.depth,
        gate_xy_um=matched.gate_xy_um,
        gate_z_um=matched.gate_z_um,
        errors=_errors(matched, np.ones(true_particles, bool)),
        lone=_group(matched, within(neighbour_um, lone_um, math.inf), lone_um, math.inf),
        by_distance=[
            _group(matched, within(neighbour_um, low, high), low, high)
            for low, high in pairwise(distance_bins_um)
        ],
        by_depth=by_depth,
        depth_covered=_covered(by_depth),
    )


def depth_edges(depth_um: FloatArray) -> FloatArray:
    """Edges (M + 1,) of equal parts of the range of the depths (N,), a number of parts that N allows.

    There are no more than 34 parts, 20 particles in each on the average; empty for fewer than four parts.
    """
    known = depth_um[np.isfinite(depth_um)]
    parts = min(MOST_DEPTH_BINS, known.size // PARTICLES_A_BIN)
    if parts < FEWEST_DEPTH_BINS or np.ptp(known) == 0:
        return np.empty(0)
    edges = np.linspace(known.min(), known.max(), parts + 1)
    edges[-1] = np.nextafter(known.max(), np.inf)
    return edges


def within(values: FloatArray, low: float, high: float) -> BoolArray:
    """Which of the values (N,) are `low` or above, and below `high`; an infinite `high` is no limit."""
    chosen: BoolArray = values >= low
    return chosen if high == math.inf else chosen & (values < high)


def pulls(error_um: FloatArray, sigma_um: FloatArray) -> FloatArray:
    """Errors over standard errors (K,), where both are known."""
    known = np.isfinite(error_um) & np.isfinite(sigma_um) & (sigma_um > 0)
    return error_um[known] / sigma_um[known]


def _group(matched: Matched, chosen: BoolArray, low_um: float, high_um: float) -> GroupScore:
    return GroupScore(
        from_um=low_um,
        to_um=high_um,
        particles=int(chosen.sum()),
        missed=_missed(matched.found[chosen]),
        errors=_errors(matched, chosen),
    )


def _missed(found: BoolArray) -> float:
    return 1 - int(found.sum()) / found.size if found.size else math.nan


def _covered(by_depth: list[GroupScore]) -> float:
    recall = np.array([1 - group.missed for group in by_depth if group.particles >= FEWEST_IN_A_PART])
    if not recall.size:
        return math.nan
    return float((recall >= COVERED * recall.max()).mean()) if recall.max() > 0 else 0.0


def _errors(matched: Matched, chosen: BoolArray) -> dict[str, AxisErrors]:
    result = {}
    for row, axis in enumerate(AXES if matched.depth else AXES[:2]):
        error = matched.error_um[row, chosen]
        scaled = pulls(error, matched.sigma_um[row, chosen])
        error = error[np.isfinite(error)]
        result[axis] = AxisErrors(
            bias_um=float(error.mean()) if error.size else math.nan,
            rms_um=float(np.sqrt((error**2).mean())) if error.size else math.nan,
            median_um=float(np.median(np.abs(error))) if error.size else math.nan,
            calibration=float(np.sqrt((scaled**2).mean())) if scaled.size else math.nan,
            calibration_robust=SIGMA_OF_MAD * float(np.median(np.abs(scaled))) if scaled.size else math.nan,
        )
    return result
