"""Background of training volumes, even and uneven, and how wrongly a volume tells of its own background."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """How the background differs from the calibration's, drawn for every volume.

    Half of the volumes have another level, by a factor of up to `level`; a part `uneven` has a background that
    varies over `lengths_px`, by up to `unevenness` of itself. The estimate that the network's input is made with is
    wrong by `offset` standard deviations of the noise in all of a volume, rather too high than too low as particles
    add to it, and by up to `uneven_offset` from place to place, where the background is uneven; and the noise by up
    to `noise` of itself.
    """

    level: float = 2.0
    uneven: float = 0.5
    unevenness: float = 0.7
    lengths_px: tuple[float, float] = (12.0, 80.0)
    offset: tuple[float, float] = (-0.12, 0.25)
    uneven_offset: float = 0.12
    noise: float = 0.06


def draw_background(
    how: Surroundings, rng: np.random.Generator, light: float, shape: tuple[int, int, int]
) -> tuple[Float32Array, Float32Array]:
    """The background (Z, H, W) above the camera's offset, and what is known of it minus it, over the noise."""
    level = light * how.level ** rng.uniform(-1, 1) if rng.random() < 0.5 else light
    wrong = np.full((1, 1, 1), rng.uniform(*how.offset), np.float32)
    if rng.random() >= how.uneven:
        return np.full(shape, level, np.float32), np.full(shape, wrong, np.float32)
    length = _between(rng, how.lengths_px)
    even = 1 + np.float32(rng.uniform(0, how.unevenness)) * _waves(rng, shape, length)
    known = wrong + np.float32(rng.uniform(0, how.uneven_offset)) * _waves(rng, shape, length)
    return (level * even).astype(np.float32), known.astype(np.float32)


def _waves(
    rng: np.random.Generator, shape: tuple[int, int, int], length_px: float, count: int = 3
) -> Float32Array:
    """Waves with wavelengths of about 2 pi `length_px`, of any direction, between -1 and 1."""
    depth, height, width = shape
    total = np.zeros(shape, np.float32)
    for _ in range(count):
        angle, phase = rng.uniform(0, 2 * math.pi, 2)
        along_z = rng.normal(0, 0.3)
        tilt = np.arange(height)[:, None] * math.sin(angle) + np.arange(width) * math.cos(angle)
        plane = (tilt / (length_px * rng.uniform(0.7, 1.4)) + phase).astype(np.float32)
        total += np.sin(plane + np.float32(along_z) * np.arange(depth, dtype=np.float32)[:, None, None])
    return np.asarray(total / count, np.float32)


def _between(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(math.log(ends[0]), math.log(ends[1]))))
