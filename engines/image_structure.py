"""Whether an image shows any structure: a back end that finds nothing may be faulty, or the image empty."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import median_abs_deviation

CELL_PX = 4
"""Side of the cells whose means are compared, px: about a small particle; larger cells dilute it."""
SURE_SIGMAS = 7.0
"""Standard deviations of the differences that count as structure. Among 10^5 cells noise exceeds 7
with a probability of 3e-7, 5 would be exceeded in one image out of twenty.
Fainter particles are missed, which only delays a check."""
APART_CELLS = 2
"""Cells between the two that are compared: far enough not to share a particle, near enough not to see shading."""


def has_structure(image: npt.NDArray[Any]) -> bool:
    """Whether an image (H, W) shows anything but noise and slow shading.

    That is means of cells 8 pixels apart that differ by seven standard deviations of such differences.
    """
    height, width = (size // CELL_PX * CELL_PX for size in image.shape)
    if not height or not width:
        return False
    cells = image[:height, :width].reshape(height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX)
    means = cells.mean(axis=(1, 3), dtype=np.float32)
    for axis in (0, 1):
        lines = np.moveaxis(means, axis, 0)
        steps = lines[APART_CELLS:] - lines[:-APART_CELLS]
        if steps.size:
            sigma = float(median_abs_deviation(steps, axis=None, scale="normal"))
            if np.abs(steps - np.median(steps)).max() > SURE_SIGMAS * max(sigma, 1.0 / CELL_PX**2):
                return True
    return False
