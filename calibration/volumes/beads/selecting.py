"""Chooses beads that show the PSF alone: no neighbour, not saturated, not at an end or edge; the others are
counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from calibration.volumes.beads.finding import Candidates

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

USED = ""
DIM = "too dim"
NEIGHBOUR = "a neighbour is too near"
SATURATED = "saturated"
END = "at an end of the stack"
EDGE = "at the edge of the images"
MANY = "more than are needed"
ODD_SIZE = "another size than the rest (two beads, or another kind)"
MISFIT = "the PSF does not fit"

STRONG = 10.0
"""Strength of a bead that is used: its widths are then known to about 15 %, so that odd ones can be told."""
LONE, LEAST_LONE = 6.0, 4.0
"""Least distance of a neighbour, in standard deviations of the PSF: at 6 a neighbour's image has fallen to 1 %
where the two meet; down to 4, where few beads are left otherwise, the voxels on the neighbour's side are left
out."""
DIM_NEIGHBOUR = 0.02
"""A neighbour with less than this part of a bead's amplitude changes its width by less than 1 %, and does not
count."""
FEW = 10
"""With fewer lone beads those with nearer neighbours are taken as well."""
FROM_END = 1.0
"""Least distance from the first and last slice, in standard deviations, where there are beads enough: nearer,
only one side of the PSF is seen. A bead that is brightest in the first or last slice may lie beyond it, and is
never used."""
FROM_EDGE = 2.0
"""Least distance from the edges of the images, in standard deviations."""
MOST = 400
"""Most beads that are used: the PSF is then known 20 times better than from one, and more take time only."""
PLATEAU = 4
"""Voxels with exactly the largest grey value of a saturated volume, at least."""


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """`reason` (N,) of each candidate, empty where it is used, and the places `others` (M, 3) of its neighbours.

    `distance` is the least one of a neighbour, in standard deviations of the PSF.
    """

    reason: npt.NDArray[np.str_]
    others: list[FloatArray]
    distance: float

    @property
    def used(self) -> BoolArray:
        """Which candidates are used."""
        return np.asarray(self.reason == USED)


def full_scale(volumes: npt.NDArray[Any]) -> float:
    """Grey value from which voxels are saturated; infinite where none is.

    The largest value of the type, or one that more voxels have than the values below it (a camera of 12 bits).
    """
    top = volumes.max()
    count = int(np.count_nonzero(volumes == top))
    if np.issubdtype(volumes.dtype, np.integer) and top == np.iinfo(volumes.dtype).max:
        return float(top)
    near = np.count_nonzero((volumes >= top * 0.97) & (volumes < top))
    return float(top) if count >= PLATEAU and count > near else np.inf


def select(volumes: npt.NDArray[Any], found: Candidates, sigma: FloatArray) -> Selection:
    """Choose among the candidates, strongest first; `sigma` (3,) in voxels along z, y, x."""
    reason = np.full(len(found), USED, dtype="U80")
    place = found.place[:, 1:].astype(np.float64)
    limits = np.array(volumes.shape[1:]) - 1.0
    from_side = np.minimum(place, limits - place)

    def leave_out(which: BoolArray, why: str) -> None:
        reason[which & (reason == USED)] = why

    leave_out(found.strength < STRONG, DIM)
    leave_out(_saturated(volumes, found, sigma), SATURATED)
    leave_out(np.asarray((from_side[:, 1:] < FROM_EDGE * sigma[1:]).any(axis=1)), EDGE)
    ends = min(FROM_END * float(sigma[0]), max(limits[0] / 2 - 1.0, 0.0))
    while ends > 0 and np.count_nonzero((reason == USED) & (from_side[:, 0] >= ends)) < FEW:
        ends = max(ends - 0.25 * float(sigma[0]), 0.0)
    leave_out(np.asarray((from_side[:, 0] < ends) | (from_side[:, 0] == 0)), END)
    nearest, others = _neighbours(found, sigma)
    lone = LONE
    while lone > LEAST_LONE and np.count_nonzero((reason == USED) & (nearest >= lone)) < FEW:
        lone -= 0.5
    leave_out(nearest < lone, NEIGHBOUR)
    rows = np.flatnonzero(reason == USED)
    reason[rows[MOST:]] = MANY
    return Selection(reason, others, lone)


def _neighbours(found: Candidates, sigma: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
    """Distance of the nearest neighbour that matters (N,), in sigmas, and the places of those within reach."""
    nearest = np.full(len(found), np.inf)
    others: list[FloatArray] = [np.empty((0, 3)) for _ in range(len(found))]
    for time in np.unique(found.place[:, 0]):
        rows = np.flatnonzero(found.place[:, 0] == time)
        scaled = found.place[rows, 1:] / sigma
        tree = KDTree(scaled)
        around: Any = tree.query_ball_point(scaled, 2.5 * LONE)
        for row, near in zip(rows, around, strict=True):
            mine = rows[[k for k in near if rows[k] != row]]
            mine = mine[found.amplitude[mine] > DIM_NEIGHBOUR * found.amplitude[row]]
            if mine.size:
                delta = (found.place[mine, 1:] - found.place[row, 1:]) / sigma
                nearest[row] = float(np.sqrt((delta**2).sum(axis=1)).min())
                others[row] = found.place[mine, 1:].astype(np.float64)
    return nearest, others


def _saturated(volumes: npt.NDArray[Any], found: Candidates, sigma: FloatArray) -> BoolArray:
    top = full_scale(volumes)
    if not np.isfinite(top):
        return np.zeros(len(found), bool)
    reach = np.maximum(np.ceil(2 * sigma), 1).astype(int)
    hit = np.zeros(len(found), bool)
    for index, row in enumerate(found.place):
        time, *middle = (int(v) for v in row)
        box = tuple(slice(max(0, m - r), m + r + 1) for m, r in zip(middle, reach, strict=True))
        hit[index] = bool((volumes[time][box] >= top).any())
    return hit
