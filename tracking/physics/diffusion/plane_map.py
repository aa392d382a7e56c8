"""D in cells over the image, where it is known well enough, and where it is another one than elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from tracking.physics.diffusion.covariance import Moments, solve

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

IN_PLANE = 2
DISPLACEMENTS_A_CELL = 600
"""Displacements that a cell has on average, or more: D is then known to about a tenth in each."""
MOST_CELLS = 12
"""Cells along a side at most."""
FEWEST_TRACKS = 10
"""Tracks from which a cell's standard error, from their scatter, is known to a quarter."""
KNOWN_TO = 1.0 / 3.0
"""Standard error of a cell, over D of all, above which it says too little to be shown."""
FALSE_ALARMS = 0.01
"""Probability that a map has a cell by chance that is said to differ."""


@dataclass(frozen=True, slots=True, eq=False)
class PlaneMap:
    """D, um^2/s, in cells over the image, with its standard error, (rows, columns), NaN where too little is known.

    `x_um` (columns + 1,) and `y_um` (rows + 1,) are the cells' edges. `differs`: cells whose D chance would not
    give if it were the same everywhere.
    """

    x_um: FloatArray
    y_um: FloatArray
    um2_s: FloatArray
    standard_error_um2_s: FloatArray
    differs: BoolArray


def plane_map(sums: Moments, place_um: FloatArray, used: BoolArray) -> PlaneMap | None:
    """D of the axes x and y that are `used` (2,), from K segments at `place_um` (2 or more axes, K).

    There are as many cells, nearly square, as the displacements allow. None if these are too few, or tell no D.
    """
    axes = np.flatnonzero(used[:IN_PLANE])
    x, y = place_um[:IN_PLANE]
    size = np.array([np.ptp(x), np.ptp(y)]) if x.size else np.zeros(IN_PLANE)
    cells = float(sums.steps.sum()) / DISPLACEMENTS_A_CELL
    if not axes.size or cells < 2.0 or not (size > 0).all():
        return None
    sums = sums.along(axes)
    whole = float(solve(sums).um2_s.mean())
    if not whole > 0:
        return None
    number = np.clip(np.floor(np.sqrt(cells * size / size[::-1])), 1, MOST_CELLS).astype(np.int64)
    edges = [np.linspace(one.min(), one.max(), count + 1) for one, count in zip((x, y), number, strict=True)]
    column, row = (
        np.minimum(np.searchsorted(edge, one, side="right") - 1, edge.size - 2)
        for edge, one in zip(edges, (x, y), strict=True)
    )
    found = solve(sums, row * number[0] + column, int(number.prod()))
    value = found.um2_s.mean(axis=0)
    error = np.sqrt((found.standard_error_um2_s**2).sum(axis=0)) / axes.size
    shown = (error < KNOWN_TO * whole) & (found.tracks >= FEWEST_TRACKS)
    value[~shown] = error[~shown] = np.nan
    limit = norm.isf(FALSE_ALARMS / 2.0 / max(int(shown.sum()), 1))
    differs = shown & (np.abs(np.nan_to_num(value - whole)) > limit * np.nan_to_num(error))
    shape = (int(number[1]), int(number[0]))
    return PlaneMap(*edges, value.reshape(shape), error.reshape(shape), differs.reshape(shape))
