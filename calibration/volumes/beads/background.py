"""Background and noise of a volume before anything is known of it, both robust against bright beads."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from engines.robust_sigma import SIGMA_OF_MAD

FloatArray = npt.NDArray[np.float64]

BLOCK_PX = 16
"""Edge of the blocks whose medians are the background, px: several times the widest bead (sigma 3), so that one
bead covers less than half a block and does not lift its median."""
BLOCK_SLICES = 3


def background_of(volume: npt.NDArray[Any]) -> FloatArray:
    """The smooth background (Z, H, W) of a volume: medians of blocks, smoothed and interpolated."""
    blocks = _blocks(volume)
    middle = np.median(blocks, axis=-1)
    spread = np.maximum(SIGMA_OF_MAD * np.median(np.abs(blocks - middle[..., None]), axis=-1), 0.5)
    # of few photons the mean of what is near the median, as a median of counts moves in whole steps
    near = np.abs(blocks - middle[..., None]) <= 2.5 * spread[..., None]
    coarse = (blocks * near).sum(axis=-1) / np.maximum(near.sum(axis=-1), 1)
    return _stretched(_smoothed(coarse), volume.shape[1:])


def noise_of(volume: npt.NDArray[Any]) -> FloatArray:
    """Standard deviation (Z, H, W) of the voxels' noise where the volume is dim: 2 x 2 differences in blocks."""
    squares = 0.5 * _squares(volume.astype(np.float64))
    blocks = _blocks(squares, BLOCK_PX // 2)
    variance = np.full(blocks.shape[:-1], np.inf)
    for _ in range(5):
        near = np.abs(blocks) <= 3 * np.sqrt(variance)[..., None] + 1.0
        # 0.9733 of a normal distribution's variance is left within 3 standard deviations
        left = np.where(np.isfinite(variance), 0.9733, 1.0)
        variance = (blocks**2 * near).sum(axis=-1) / np.maximum(near.sum(axis=-1), 1) / left
    return np.sqrt(np.maximum(_stretched(_smoothed(variance), volume.shape[1:]), 1e-6))


def _blocks(values: FloatArray | npt.NDArray[Any], edge: int = BLOCK_PX) -> FloatArray:
    """Values (Z, rows, columns, N) of blocks over three slices; the last blocks overlap those before them."""
    depth, height, width = values.shape
    rows, columns = (
        np.linspace(0, max(n - edge, 0), max(1, round(n / edge))).astype(int) for n in (height, width)
    )
    tall, wide = min(edge, height), min(edge, width)
    view = np.lib.stride_tricks.sliding_window_view(values, (tall, wide), axis=(1, 2))[:, rows][:, :, columns]
    flat = view.reshape(depth, len(rows), len(columns), tall * wide).astype(np.float64)
    slices = np.clip(np.arange(depth)[:, None] + np.arange(BLOCK_SLICES) - BLOCK_SLICES // 2, 0, depth - 1)
    return np.concatenate([flat[part] for part in slices.T], axis=-1)


def _smoothed(coarse: FloatArray) -> FloatArray:
    coarse = ndimage.median_filter(coarse, size=(1, 3, 3), mode="reflect")
    return np.asarray(ndimage.gaussian_filter(coarse, (1.0, 0.7, 0.7), mode="nearest"))


def _stretched(coarse: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """The blocks' values (Z, rows, columns) between their centres, (Z, H, W), and in line with them to the
    edges."""
    for axis in (1, 2):
        if coarse.shape[axis] > 1:
            ends = [np.take(coarse, index, axis=axis) for index in ([0], [1], [-1], [-2])]
            low, high = (np.maximum(2 * a - b, 0.5 * a) for a, b in (ends[:2], ends[2:]))
            coarse = np.concatenate([low, coarse, high], axis=axis)
        else:
            coarse = np.concatenate([coarse] * 3, axis=axis)
    places = []
    for count, size in zip(coarse.shape[1:], shape, strict=True):
        edge, blocks = min(BLOCK_PX, size), count - 2
        step = (size - edge) / (blocks - 1) if blocks > 1 else float(size)
        places.append((np.arange(size) - (edge - 1) / 2) / step + 1)
    grid = np.meshgrid(*places, indexing="ij")
    return np.stack([ndimage.map_coordinates(plane, grid, order=1, mode="nearest") for plane in coarse])


def _squares(v: FloatArray) -> FloatArray:
    height, width = v.shape[1] // 2 * 2, v.shape[2] // 2 * 2
    v = v[:, :height, :width]
    return v[:, ::2, ::2] - v[:, 1::2, ::2] - v[:, ::2, 1::2] + v[:, 1::2, 1::2]
