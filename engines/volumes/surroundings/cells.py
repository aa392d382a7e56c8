"""Background and noise of a volume, cell by cell, from blocks of voxels that show no particle."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Float32Array = npt.NDArray[np.float32]

BLOCK = 4
"""Edge of a block, px: its mean has a quarter of a pixel's noise, so that a faint particle shows in it."""
CLIP = 2.0
"""Blocks further than so many of their own standard deviations from the middle are left out, on both sides: the
particles are among them. At 2 a cell keeps 95 % of an empty background, and at a twentieth of it under particles of
SNR 1 its mean is too high by 1 % of the noise of a pixel."""
ROUNDS = 3
"""Rounds of leaving out; the kept ones hardly change after the second."""
LOWER = 0.1587
"""Part of a normal distribution below one standard deviation under its middle."""
DARKEST, DARKEST_SIGMAS = 0.05, 1.645
"""Part of the blocks of a crowded cell that are its background, and how many standard deviations of a block's noise
the brightest of them lies below the middle if nothing but noise tells blocks apart. With less, few blocks decide;
at half the volume full of particles that touch a tenth of all blocks lie between them."""
MEDIAN_POWER = 0.839
"""Median of a block's variance over its mean: chi-square of 4 degrees of freedom."""


@njit(cache=True, nogil=True)
def cell_statistics(
    image: npt.NDArray[Any],
    missing: npt.NDArray[np.bool_],
    edges_y: npt.NDArray[np.int64],
    edges_x: npt.NDArray[np.int64],
    block: int,
    crowded: bool,
    mean: Float32Array,
    variance: Float32Array,
) -> None:
    """Fill `mean` and `variance` (Z, h, w), grey values, with those of the background in each cell; NaN if missing.

    Where the volume is `crowded` the darkest blocks of a cell are its background, else those like its middle. Cells
    are bounded by `edges_*`, in blocks of `block` x `block` pixels. The variance is that of single voxels, from the
    differences of neighbours, so that slow changes of the background are not in it.
    """
    depth = image.shape[0]
    most = 1
    for row in range(edges_y.size - 1):
        for column in range(edges_x.size - 1):
            most = max(most, (edges_y[row + 1] - edges_y[row]) * (edges_x[column + 1] - edges_x[column]))
    means, powers = np.empty(most), np.empty(most)
    for k in range(depth):
        if missing[k]:
            mean[k] = np.nan
            variance[k] = np.nan
            continue
        for row in range(edges_y.size - 1):
            for column in range(edges_x.size - 1):
                n = 0
                for by in range(edges_y[row], edges_y[row + 1]):
                    for bx in range(edges_x[column], edges_x[column + 1]):
                        means[n], powers[n] = _block(image[k], by * block, bx * block, block)
                        n += 1
                found = _darkest(means[:n], powers[:n], block) if crowded else _clipped(means[:n], powers[:n])
                mean[k, row, column], variance[k, row, column] = found


@njit(cache=True, nogil=True)
def _block(image: npt.NDArray[Any], top: int, left: int, block: int) -> tuple[float, float]:
    """Mean of a block, and the variance of its voxels from 2 x 2 differences."""
    total = 0.0
    power = 0.0
    for j in range(top, top + block, 2):
        for i in range(left, left + block, 2):
            a, b = float(image[j, i]), float(image[j, i + 1])
            c, d = float(image[j + 1, i]), float(image[j + 1, i + 1])
            total += a + b + c + d
            difference = a - b - c + d
            power += difference * difference
    return total / (block * block), power / (block * block)


@njit(cache=True, nogil=True)
def _clipped(means: npt.NDArray[np.float64], powers: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Mean and variance over the blocks that look like the middle of them."""
    ordered = np.sort(means)
    middle = ordered[ordered.size // 2]
    reach = CLIP * (middle - ordered[int(LOWER * ordered.size)])
    total, power, kept = middle, 0.0, 1
    for _ in range(ROUNDS):
        total, power, kept = 0.0, 0.0, 0
        for index in range(means.size):
            if abs(means[index] - middle) <= reach + 1e-9 * abs(middle):
                total += means[index]
                power += powers[index]
                kept += 1
        if kept == 0:
            return middle, math.nan
        middle = total / kept
    return middle, power / kept


@njit(cache=True, nogil=True)
def _darkest(
    means: npt.NDArray[np.float64], powers: npt.NDArray[np.float64], block: int
) -> tuple[float, float]:
    """Mean and variance from the darkest blocks: what lies between particles that leave little else."""
    ordered = np.sort(means)
    variance = np.median(powers) / MEDIAN_POWER
    level = ordered[int(DARKEST * ordered.size)] + DARKEST_SIGMAS * np.sqrt(variance) / block
    return min(level, ordered[ordered.size // 2]), variance
