"""What stays at its place while particles move: dust on the sensor or on a window near it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from engines.refine.arguments import BoolArray, Float32Array, FloatArray
from engines.selfcheck.images import Found

LOOKS = 15
"""Looks that are averaged, at least one second apart: a particle that passes leaves 1/15 of its contrast."""
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
NEAR_PX = 4.0
MOST_STILL = 0.3
"""Part of the particles that may lie on spots: with more of them, nothing moves, and dust looks like a particle."""


class DustCheck:
    """Averages looks and finds what stays; particles stuck to a wall are told as that."""

    def __init__(self) -> None:
        self._sum: Float32Array | None = None
        self._count = 0
        self._peak = 0.0
        self._particles: list[FloatArray] = []
        self.spots: list[tuple[float, float]] = []

    def add(self, contrast: Float32Array, particles_px: FloatArray, noise: float) -> list[Found]:
        """Take a look: contrast (H, W), particles (N, 2: x, y) in it, fitted or not, noise; returns what is sure."""
        if self._sum is None or self._sum.shape != contrast.shape:
            self._sum, self._count, self._particles, self._peak = np.zeros_like(contrast), 0, [], 0.0
        self._sum += contrast
        self._count += 1
        self._particles.append(particles_px)
        peak = np.partition(contrast[::2, ::2].ravel(), -10)[-10]
        self._peak = max(self._peak, float(peak))
        if self._count < LOOKS:
            return []
        found = self._judge(self._sum / np.float32(self._count), noise)
        self._sum, self._count, self._particles, self._peak = None, 0, [], 0.0
        return found

    def _judge(self, mean: Float32Array, noise: float) -> list[Found]:
        smooth = _smooth(mean)
        level = max(SIGMAS * noise / np.sqrt(self._count), PASSING * self._peak / self._count)
        spots = _spots(np.abs(mean - smooth) > level)
        everyone = np.concatenate(self._particles) if self._particles else np.empty((0, 2))
        on_spot = np.zeros(len(everyone), np.bool_)
        self.spots = []
        stuck = 0
        for x, y in spots:
            near = np.hypot(everyone[:, 0] - x, everyone[:, 1] - y) < NEAR_PX
            on_spot |= near
            if near.sum() >= self._count / 2:
                stuck += 1
            else:
                self.spots.append((x, y))
        if not self.spots or len(spots) > MOST_SPOTS or on_spot.sum() > MOST_STILL * max(len(everyone), 1):
            return []
        x, y = self.spots[0]
        more = f" and at {len(self.spots) - 1} other places" if len(self.spots) > 1 else ""
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
