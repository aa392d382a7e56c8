"""Tells where the tracks of a region differ from the fitted flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from tracking.physics.channel.misfit import FEWEST_IN_A_CELL, SMALLEST
from tracking.physics.region.fit import RegionFit

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MOST_CELLS = 12
"""Cells along x or y; they are as large as the region is deep, or larger."""
CELLS_OVER_DEPTH = 2
FALSE_ALARMS = 0.01
"""Probability that some cell of a map is told where no flow differs."""


@dataclass(frozen=True, slots=True, eq=False)
class CellResiduals:
    """Mean residuals of C cells that have enough tracks.

    `low_um` and `high_um` (3, C) are their corners, `tracks` (C,) the pieces of tracks in them. `residual_um_s`
    (3, C) is measured less fitted velocity, `standard_error_um_s` its error, `chi_square` (C,) the sum of the
    squares of both over each other (3 degrees of freedom), and `told` the cells that chance alone would not give.
    """

    low_um: FloatArray
    high_um: FloatArray
    tracks: IntArray
    residual_um_s: FloatArray
    standard_error_um_s: FloatArray
    chi_square: FloatArray
    told: npt.NDArray[np.bool_]


def cell_residuals(fit: RegionFit, *, false_alarms: float = FALSE_ALARMS) -> CellResiduals:
    """Residuals of the tracks that follow the flow, cell by cell.

    A cell is told if chance gives its chi-square in less than `false_alarms` of the maps (Bonferroni), and the
    residual is more than `SMALLEST` of the fastest velocity of the tracks."""
    region = fit.flows.flows.domain.region
    corners = region.outline_um
    low = np.array([*corners.min(axis=0), region.floor_um])
    size = np.array([*np.ptp(corners, axis=0), region.depth_um])
    seen = np.clip((size[:2] / region.depth_um).astype(np.int64), 1, MOST_CELLS)
    cells = np.array([*seen, CELLS_OVER_DEPTH])
    share = (fit.places.place_um - low[:, None]) / size[:, None]
    index = np.clip((share * cells[:, None]).astype(np.int64), 0, cells[:, None] - 1)
    names, of, count = np.unique(
        np.ravel_multi_index(tuple(index), tuple(cells)), return_inverse=True, return_counts=True
    )
    weight = np.stack([np.bincount(of, fit.weight[axis]) for axis in range(3)])
    pull = np.stack([np.bincount(of, (fit.weight * fit.residual_um_s)[axis]) for axis in range(3)])
    enough = (count >= FEWEST_IN_A_CELL) & (weight > 0).all(axis=0)
    names, count, weight, pull = names[enough], count[enough], weight[:, enough], pull[:, enough]
    residual, error = pull / weight, 1.0 / np.sqrt(weight)
    square = ((residual / error) ** 2).sum(axis=0)
    fastest = float(np.sqrt(((fit.design @ fit.amplitude) ** 2).sum(axis=0)).max())
    told = chi2.sf(square, 3) < false_alarms / max(names.size, 1)
    told &= np.linalg.norm(residual, axis=0) > SMALLEST * fastest
    corner = low[:, None] + np.stack(np.unravel_index(names, tuple(cells))) * (size / cells)[:, None]
    return CellResiduals(corner, corner + (size / cells)[:, None], count, residual, error, square, told)
