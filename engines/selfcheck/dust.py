"""What stays at its place while particles move: dust on the sensor or on a window near it.

Looks are averaged without the images of the particles that were found in them: a slow particle near a wall would
leave as much as dust.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from engines.refine.arguments import BoolArray, Float32Array, FloatArray
from engines.selfcheck.images import Found

LOOKS = 15
"""Looks that are averaged, at least one second apart: a particle that is not found leaves 1/15 of its contrast."""
FREE_LOOKS = 6
"""Looks in which no particle is at a pixel, from which it is judged. With fewer, one particle that was not found is
more than a sixth of the mean; more leaves out places that slow particles pass."""
BLOCK_PX = 32
"""Side of the blocks whose medians make the smooth background: wider than the images of particles."""
SIGMAS = 8.0
"""Standard deviations of the mean at which a pixel stands out; one of 3.7 million passes 5.3 by chance."""
PASSING = 3.0
"""A spot also stands out by so many times what the most contrasting particle would leave in passing once."""
FEWEST_PX = 4
LARGEST_PX = 60
"""Size of a spot: fewer pixels are hot ones, what is longer is the edge of a channel."""
MOST_SPOTS = 20
ALWAYS, MOST_STILL = 0.8, 0.3
"""Part of the pixels with particles that may have them in so many looks: with more, nothing moves, and a particle
that is not found looks like dust."""


class DustCheck:
    """Averages looks and finds what stays and is no particle."""

    def __init__(self) -> None:
        self._sum: Float32Array | None = None
        self._free: Float32Array | None = None
        self._count = 0
        self._peak = 0.0
        self.spots: list[tuple[float, float]] = []

    def add(
        self, contrast: Float32Array, particles_px: FloatArray, reach_px: FloatArray, noise: float
    ) -> list[Found]:
        """Take a look: contrast (H, W), particles (N, 2: x, y) and how far their images reach (N,), the noise.

        Returns what is sure.
        """
        if self._sum is None or self._free is None or self._sum.shape != contrast.shape:
            self._sum, self._free = np.zeros_like(contrast), np.zeros_like(contrast)
            self._count, self._peak = 0, 0.0
        free = np.ones_like(contrast)
        low = np.maximum(np.rint(particles_px - reach_px[:, None]), 0).astype(np.int64)
        high = np.maximum(np.rint(particles_px + reach_px[:, None]) + 1, 0).astype(np.int64)
        for (left, top), (right, bottom) in zip(low, high, strict=True):
            free[top:bottom, left:right] = 0
        self._sum += contrast * free
        self._free += free
        self._count += 1
        peak = np.partition(contrast[::2, ::2].ravel(), -10)[-10]
        self._peak = max(self._peak, float(peak))
        if self._count < LOOKS:
            return []
        found = self._judge(self._sum, self._free, noise)
        self._sum = self._free = None
        return found

    def _judge(self, total: Float32Array, free: Float32Array, noise: float) -> list[Found]:
        known = free >= FREE_LOOKS
        taken = self._count - free
        still = np.count_nonzero(taken >= ALWAYS * self._count) > MOST_STILL * np.count_nonzero(taken)
        self.spots = []
        if still or not known.any():
            return []
        count = np.maximum(free, 1.0)
        mean = np.where(known, total / count, np.float32(np.median(total[known] / count[known])))
        level = np.maximum(SIGMAS * noise / np.sqrt(count), PASSING * self._peak / count)
        spots = _spots(known & (np.abs(mean - _smooth(mean)) > level))
        if not spots or len(spots) > MOST_SPOTS:
            return []
        self.spots = spots
        x, y = spots[0]
        more = f" and at {len(spots) - 1} other places" if len(spots) > 1 else ""
        text = (
            f"something stays at x = {x:.0f}, y = {y:.0f} px{more} while particles move, and is none: dust on the "
            "sensor or on a window near it; particles there are measured wrong, clean it or take a new bright "
            "reference"
        )
        return [Found("dust", text)]


def _smooth(mean: Float32Array) -> Float32Array:
    """Medians of blocks, interpolated between their middles."""
    height, width = mean.shape
    rows, columns = max(height // BLOCK_PX, 1), max(width // BLOCK_PX, 1)
    tall, wide = height // rows, width // columns
    blocks = mean[: rows * tall, : columns * wide].reshape(rows, tall, columns, wide)
    middle = np.median(blocks.transpose(0, 2, 1, 3).reshape(rows, columns, -1)[:, :, ::4], axis=2)
    y = np.clip((np.arange(height) + 0.5) / tall - 0.5, 0, rows - 1)
    x = np.clip((np.arange(width) + 0.5) / wide - 0.5, 0, columns - 1)
    found: Float32Array = ndimage.map_coordinates(
        middle, np.meshgrid(y, x, indexing="ij"), order=1, output=np.float32
    )
    return found


def _spots(stands_out: BoolArray) -> list[tuple[float, float]]:
    """Middles (x, y) of the spots of more than a few pixels that are not long."""
    label, _ = ndimage.label(stands_out, np.ones((3, 3)))
    out = []
    for number, where in enumerate(ndimage.find_objects(label), start=1):
        rows, columns = where
        pixels = label[where] == number
        if pixels.sum() >= FEWEST_PX and max(pixels.shape) <= LARGEST_PX:
            y, x = np.nonzero(pixels)
            out.append((float(columns.start + x.mean()), float(rows.start + y.mean())))
    return out
