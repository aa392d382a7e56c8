"""Background and noise of a volume from the volume itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from engines.robust_sigma import SIGMA_OF_MAD
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.cells import BLOCK, cell_statistics
from engines.volumes.surroundings.crowding import is_crowded
from engines.volumes.surroundings.noise import LEAST_VARIANCE, Noise

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

CELL_PX = 32
"""Edge of a cell, px. A cell's mean is then known to 0.03 of a pixel's noise, and a background is followed that
changes over 50 px and more. Smaller ones follow particles."""
CELL_SIGMAS = 16.0
"""Edge of a cell in standard deviations of a spot, where that is more."""
KNOWN_SLOPE = 0.2
"""Relative standard error up to which a line through variances over means counts. Above it the gain is that of shot
noise above a grey value of 0, the least that it can be."""
LEFT_BY_SMOOTHING, OF_SMOOTHED = 0.71, 0.11
"""Parts of a cell's own variance in its difference from the smoothed one, and in the smoothed one itself: weights
1 2 1 along three axes, twice (`smooth`)."""
NOISE_MARGIN = 4.0
"""Variance of cells, over that of their noise, below which they are smoothed whole: particles make up the rest."""
LEAST_SD = 0.01
"""Least uncertainty of a background, grey values."""
CLEAR_RANGE = 10.0
"""Range of the background in standard errors of a cell's mean, from which levels of brightness are compared:
where it is less, they would be sorted by their own noise."""
LEVELS = 12
"""Levels of brightness between which the variance is compared."""


def estimate_surroundings(
    image: npt.NDArray[Any],
    missing: npt.NDArray[np.bool_],
    sigma_px: float,
    noise: Noise | None = None,
    *,
    even_noise: bool = False,
) -> tuple[Background, Noise]:
    """Background and noise of a volume (Z, H, W); `noise` is kept where it is known.

    `sigma_px` is the standard deviation of a spot in the plane, pixels. Slices that are `missing` (Z,) get the
    background of their neighbours. With `even_noise` it does not change with brightness (an inverted image, where
    shot noise falls with the grey value).
    """
    _, height, width = image.shape
    if min(height, width) < 2 or bool(missing.all()):
        return _flat(image, missing, noise)
    block = BLOCK if min(height, width) >= 4 * BLOCK else 2
    cell = max(1, round(max(CELL_PX, CELL_SIGMAS * sigma_px) / block))
    edges_y, edges_x = _edges(height // block, cell), _edges(width // block, cell)
    shape = (image.shape[0], edges_y.size - 1, edges_x.size - 1)
    mean, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
    crowded = is_crowded(image, missing, sigma_px, block)
    cell_statistics(image, missing, edges_y, edges_x, block, crowded, mean, variance)
    grid = smoothed = smooth(mean, missing)
    structured = _structure(mean, grid, missing, variance, (cell * block) ** 2)
    grid = np.asarray(np.where(missing[:, None, None], grid, grid + structured * (mean - grid)), np.float32)
    if noise is None and even_noise:
        noise = Noise(0.0, 0.0, max(float(np.nanmedian(variance)), LEAST_VARIANCE))
    elif noise is None:
        noise = fit_noise(grid[~missing], variance[~missing], (cell * block) ** 2)
    sd = _uncertainty(mean, smoothed, missing, noise, (cell * block) ** 2)
    return Background(grid, cell * block, sd, crowded), noise


def _structure(
    mean: Float32Array,
    grid: Float32Array,
    missing: npt.NDArray[np.bool_],
    variance: Float32Array,
    voxels: int,
) -> float:
    """Part (0 to 1) of what cells differ from the smoothed ones that is structure and not their noise (Wiener)."""
    scatter = float(np.mean((mean - grid)[~missing] ** 2, dtype=np.float64))
    known = variance[~missing]
    known = known[np.isfinite(known)]
    of_noise = (
        LEFT_BY_SMOOTHING * max(float(np.median(known)) if known.size else 0.0, LEAST_VARIANCE) / voxels
    )
    return max(0.0, 1 - NOISE_MARGIN * of_noise / scatter) if scatter > 0 else 0.0


def _uncertainty(
    mean: Float32Array, grid: Float32Array, missing: npt.NDArray[np.bool_], noise: Noise, voxels: int
) -> float:
    """How far the background may be from the smoothed one: its noise, and what the cells differ beyond theirs."""
    off = (mean - grid)[~missing]
    scatter = SIGMA_OF_MAD * float(np.median(np.abs(off - np.median(off))))
    of_a_cell = float(np.median(noise.variance(grid))) / voxels
    structure = max(0.0, scatter**2 - LEFT_BY_SMOOTHING * of_a_cell)
    return max(LEAST_SD, float(np.sqrt(structure + OF_SMOOTHED * of_a_cell)))


def _edges(blocks: int, cell: int) -> npt.NDArray[np.int64]:
    """Bounds of the cells, in blocks; what is left over is joined to the last one if it is less than
    half a cell."""
    cells = max(1, round(blocks / cell))
    edges = cell * np.arange(cells + 1)
    edges[-1] = blocks
    return edges


def _flat(
    image: npt.NDArray[Any], missing: npt.NDArray[np.bool_], noise: Noise | None
) -> tuple[Background, Noise]:
    values = image[~missing].astype(np.float64)
    if values.size == 0:
        return Background.flat(0.0, image.shape[0]), noise or Noise(0.0, 0.0, LEAST_VARIANCE)
    middle = float(np.median(values))
    below = middle - float(np.quantile(values, 0.1587))
    return Background.flat(middle, image.shape[0]), noise or Noise(0.0, 0.0, max(below**2, LEAST_VARIANCE))


def smooth(mean: Float32Array, missing: npt.NDArray[np.bool_]) -> Float32Array:
    """The means of cells (Z, h, w), smoothed along all axes but for steps of the light from slice to slice.

    Each slice keeps its own level (bleaching, flicker); what varies inside of it is averaged with its
    neighbours, and what that left over once more (twicing, Tukey 1977): once alone lowers a wide bump of the
    light by a quarter, and noise on it is then taken for particles.
    """
    have = np.flatnonzero(~missing)
    if have.size == 0:
        return np.zeros_like(mean)
    kept = mean[have].astype(np.float64)
    level = np.median(kept, axis=(1, 2), keepdims=True)
    pattern = kept - level
    averaged = _averaged(pattern)
    smoothed = level + averaged + _averaged(pattern - averaged)
    smoothed += np.median(kept - smoothed, axis=(1, 2), keepdims=True)
    if have.size < missing.size:
        slices = np.arange(missing.size)
        after = np.clip(np.searchsorted(have, slices), 0, have.size - 1)
        before = np.clip(after - 1, 0, have.size - 1)
        nearest = np.where(np.abs(have[before] - slices) <= np.abs(have[after] - slices), before, after)
        smoothed = smoothed[nearest]
    return np.ascontiguousarray(smoothed, np.float32)


def _averaged(pattern: FloatArray) -> FloatArray:
    for axis in range(3):
        pattern = _binomial(pattern, axis)
    return pattern


def _binomial(values: FloatArray, axis: int) -> FloatArray:
    """Averaged with the neighbours along an axis, weights 1 2 1; at an end 2 1."""
    moved = np.moveaxis(values, axis, 0)
    if moved.shape[0] == 1:
        return values
    padded = np.concatenate([moved[:1], moved, moved[-1:]])
    weights = np.ones(moved.shape[0] + 2)
    weights[[0, -1]] = 0.0
    shape = (-1, *([1] * (values.ndim - 1)))
    w = weights.reshape(shape)
    total = 2 * moved + padded[:-2] * w[:-2] + padded[2:] * w[2:]
    return np.moveaxis(total / (2 + w[:-2] + w[2:]), 0, axis)


def fit_noise(mean: npt.NDArray[Any], variance: npt.NDArray[Any], voxels: int) -> Noise:
    """The noise that explains variances over (smoothed) means of cells of so many `voxels`, in grey values.

    A straight line through levels of brightness (photon transfer, Janesick 2007), where the background varies
    enough; else the variance is that of shot noise above a grey value of 0.
    """
    m, v = mean.ravel().astype(np.float64), variance.ravel().astype(np.float64)
    good = np.isfinite(m) & np.isfinite(v)
    m, v = m[good], v[good]
    if m.size == 0:
        return Noise(0.0, 0.0, LEAST_VARIANCE)
    typical, level = float(np.median(v)), float(np.median(m))
    uncertain = float(np.sqrt(max(typical, LEAST_VARIANCE) / voxels))
    if m.size >= 4 * LEVELS and np.ptp(np.quantile(m, [0.05, 0.95])) > CLEAR_RANGE * uncertain:
        groups = np.array_split(np.argsort(m), LEVELS)
        x = np.array([m[g].mean() for g in groups])
        y = np.array([np.median(v[g]) for g in groups])
        slope, at_zero, error = _line(x, y, np.maximum(y, LEAST_VARIANCE))
        if error < KNOWN_SLOPE * slope:
            return Noise(slope, max(0.0, -at_zero / slope), max(0.0, at_zero))
    if level <= 0 or typical <= LEAST_VARIANCE:
        return Noise(0.0, 0.0, max(typical, LEAST_VARIANCE))
    return Noise(typical / level, 0.0, 0.0)


def _line(x: FloatArray, y: FloatArray, scale: FloatArray) -> tuple[float, float, float]:
    """Slope, value at 0 and the slope's standard error (from the scatter) of a line; errors go with `scale`."""
    weight = scale**-2
    middle = float(np.average(x, weights=weight))
    spread = float(np.sum(weight * (x - middle) ** 2))
    if spread <= 0:
        return 0.0, float(y.mean()), np.inf
    slope = float(np.sum(weight * (x - middle) * y) / spread)
    height = float(np.average(y, weights=weight))
    left = float(np.sum(weight * (y - height - slope * (x - middle)) ** 2) / max(1, x.size - 2))
    return slope, height - slope * middle, float(np.sqrt(left / spread))
