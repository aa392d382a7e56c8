"""Which detections of two trajectory files are the same particle in the same frame, and by how much they differ."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from tracking.trajectories.schema import RecordArray

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

DEPTH_WEIGHT = 0.1
"""Weight of a difference in depth against one in the plane where several detections are near: depths are some ten
times less certain (docs/network.md). It decides only between neighbours, not whether two are a pair."""
BINS_PER_DECADE = 40
LEAST_UM = 1e-6
"""Moves are sorted into bins 6 % wide from 1e-6 um on, so that files of any length need no more memory; what is
less counts as that."""
BINS = 16 * BINS_PER_DECADE


def pairs_of(a: RecordArray, b: RecordArray, within_um: float) -> tuple[IntArray, IntArray]:
    """Positions in `a` and `b` (ROW, of any frames) of pairs: each other's nearest in a frame, in the plane.

    The two of a pair are at most `within_um` apart in x and y.
    """
    if not len(a) or not len(b):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    apart_um = 4.0 * (_reach_um(a, b) + within_um)
    first = int(min(a["frame"].min(), b["frame"].min()))
    here, there = (_places(rows, first, apart_um) for rows in (a, b))
    tree_a, tree_b = cKDTree(here), cKDTree(there)
    to_b, to_a = (np.asarray(found, np.int64) for found in (tree_b.query(here)[1], tree_a.query(there)[1]))
    at = np.arange(len(a))
    mutual = to_a[to_b] == at
    at, other = at[mutual], to_b[mutual]
    near = a["frame"][at] == b["frame"][other]
    near &= np.hypot(a["x_um"][at] - b["x_um"][other], a["y_um"][at] - b["y_um"][other]) <= within_um
    return at[near], other[near]


def _reach_um(a: RecordArray, b: RecordArray) -> float:
    """How far two detections of one frame may be apart, um."""
    spans = [np.ptp(_axes(np.concatenate([a, b]))[:, axis]) for axis in range(3)]
    return float(math.hypot(*spans))


def _axes(rows: RecordArray) -> FloatArray:
    depth = np.nan_to_num(rows["z_um"]) * DEPTH_WEIGHT
    axes: FloatArray = np.nan_to_num(np.column_stack([rows["x_um"], rows["y_um"], depth]))
    return axes


def _places(rows: RecordArray, first: int, apart_um: float) -> FloatArray:
    frame = (
        rows["frame"].astype(np.float64) - first
    ) * apart_um  # other frames are farther than any neighbour
    return np.column_stack([_axes(rows), frame])


@dataclass(slots=True)
class Moves:
    """Distances, um, in bins: their number, median, 95th percentile and greatest."""

    count: int = 0
    greatest_um: float = 0.0
    _bins: IntArray = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, um: FloatArray) -> None:
        """Take distances (N,)."""
        um = um[np.isfinite(um)]
        if not um.size:
            return
        self.count += um.size
        self.greatest_um = max(self.greatest_um, float(um.max()))
        at = np.floor(BINS_PER_DECADE * np.log10(np.maximum(um, LEAST_UM) / LEAST_UM)).astype(np.int64)
        self._bins += np.bincount(np.minimum(at, BINS - 1), minlength=BINS)

    def quantile_um(self, part: float) -> float:
        """The distance that `part` of them do not exceed, to 6 %; NaN without any."""
        if not self.count:
            return math.nan
        at = int(np.searchsorted(np.cumsum(self._bins), part * self.count))
        return float(min(LEAST_UM * 10.0 ** ((at + 1) / BINS_PER_DECADE), self.greatest_um))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        if not self.count:
            return {"count": 0}
        return {
            "count": self.count,
            "median_um": self.quantile_um(0.5),
            "p95_um": self.quantile_um(0.95),
            "greatest_um": self.greatest_um,
        }


@dataclass(slots=True)
class DetectionDifference:
    """Detections of both files: `same` have the same place, `moved` another one, the others have no partner."""

    same: int = 0
    only_a: int = 0
    only_b: int = 0
    moved: Moves = field(default_factory=Moves)
    moved_in_depth: Moves = field(default_factory=Moves)

    def add(self, a: RecordArray, b: RecordArray, pairs: tuple[IntArray, IntArray]) -> None:
        """Take the detections (ROW) of some frames and their `pairs_of`."""
        at, other = pairs
        dx, dy, dz = (b[name][other] - a[name][at] for name in ("x_um", "y_um", "z_um"))
        plane = np.hypot(dx, dy)
        has_moved = (plane > 0) | (np.nan_to_num(dz) != 0)
        self.same += int((~has_moved).sum())
        self.only_a += len(a) - len(at)
        self.only_b += len(b) - len(at)
        self.moved.add(plane[has_moved])
        self.moved_in_depth.add(np.abs(dz[has_moved]))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "same": self.same,
            "moved": self.moved.to_dict(),
            "moved_in_depth": self.moved_in_depth.to_dict(),
            "only_a": self.only_a,
            "only_b": self.only_b,
        }
