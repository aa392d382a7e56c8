"""Background that changes over a few spots: clouds of light between the size of a spot and that of a cell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, maximum_filter, median_filter

from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.cells import BLOCK
from engines.volumes.surroundings.noise import Noise

Float32Array = npt.NDArray[np.float32]

ACROSS_SIGMAS = 9.0
"""Edge of the neighbourhood whose median is the local background, in standard deviations of a spot: a spot then
fills less than half of it, and moves the median by 0.15 of a voxel's noise at most."""
MEDIAN_NOISE = 1.25
"""Standard error of a median over that of a mean."""
CLEAR = 4.0
"""Standard errors of such a median from which the background is corrected, by what exceeds them in square."""
QUIET = 8.0
"""Standard deviations of a block, above the given background, that none in a neighbourhood has where it is asked
whether there are clouds: particles that are close together lift medians as well."""
LEAST_PART = 0.05
"""Part of the quiet places that must be brighter by so much. Without clouds 0.1 to 0.7 % are, and 4 % among four
times as many particles as the densest."""
PROBE_BLOCKS = 32
"""Rows of blocks in the middle of the volume where this is asked first: the answer costs as much as a filter."""


def with_structure(
    image: npt.NDArray[Any],
    missing: npt.NDArray[np.bool_],
    background: Background,
    noise: Noise,
    sigma_voxels: tuple[float, float, float],
) -> Background:
    """The background of a volume (Z, H, W) with the clouds in it, or as it is where there are none.

    Medians of blocks of voxels, each with its neighbours along all axes, less the given background.
    """
    _, height, width = image.shape
    rows, columns = height // BLOCK, width // BLOCK
    size = [_odd(ACROSS_SIGMAS * s / b) for s, b in zip(sigma_voxels, (3 * BLOCK, BLOCK, BLOCK), strict=True)]
    if min(rows, columns) < 2 * max(size[1:]) or bool(missing.any()):
        return background
    error = MEDIAN_NOISE / np.sqrt(np.prod(size))
    probed = min(rows, PROBE_BLOCKS)
    first = (rows - probed) // 2
    _, _, off = _off(image, background, noise, first, first + probed, columns)
    quiet = np.asarray(maximum_filter(off, size=size, mode="nearest")) < QUIET
    raised = np.asarray(median_filter(off, size=size, mode="nearest")) > CLEAR * error
    if np.count_nonzero(raised & quiet) < LEAST_PART * max(int(np.count_nonzero(quiet)), 1):
        return background
    coarse, spread, off = _off(image, background, noise, 0, rows, columns)
    local = np.asarray(median_filter(off, size=size, mode="nearest"))
    kept = np.maximum(1 - (CLEAR * error / np.maximum(np.abs(local), error)) ** 2, 0)
    smooth = gaussian_filter(local * kept, (0.5, 0.7, 0.7), mode="nearest")
    grid = np.ascontiguousarray(coarse + smooth * spread, np.float32)
    return replace(background, grid=grid, cell_px=BLOCK)


def _odd(size: float) -> int:
    return max(3, 2 * int(size / 2) + 1)


def _off(
    image: npt.NDArray[Any], background: Background, noise: Noise, first: int, last: int, columns: int
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """For rows of blocks: the background, the noise of a block's mean, and its difference over that; (Z, rows,
    columns)."""
    depth = image.shape[0]
    rows = (np.arange(first, last) + 0.5) * BLOCK - 0.5
    y, x = np.meshgrid(rows, (np.arange(columns) + 0.5) * BLOCK - 0.5, indexing="ij")
    coarse = np.stack([background.at(x, y, np.full(x.shape, float(k))) for k in range(depth)])
    blocks = image[:, first * BLOCK : last * BLOCK, : columns * BLOCK]
    seen = blocks.reshape(depth, last - first, BLOCK, columns, BLOCK).mean(axis=(2, 4), dtype=np.float32)
    spread = np.sqrt(noise.variance(coarse)) / BLOCK
    return (
        coarse.astype(np.float32),
        spread.astype(np.float32),
        np.asarray((seen - coarse) / spread, np.float32),
    )
