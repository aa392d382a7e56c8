"""Source of training volumes: particles, background, noise and missing slices, as the network gets them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from calibration.volumes.drawing.light import AddLight, add_gaussians, counted
from calibration.volumes.drawing.placing import Crowd, peak_of, place
from calibration.volumes.drawing.surroundings import Surroundings, draw_background
from engines.volumes.network.layout import ABSENT, STEP
from engines.volumes.surroundings.noise import Noise

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class VolumeScene:
    """Drawn volumes and the particles whose centres are in them.

    `images` (B, S, H, W) float32 is the network's input, S even: beyond `slices` nothing is there. Of particles
    (N,): `volume`, `centres` (N, 3) z, y, x in voxels, `peak` in grey values, and `brightness`, the logarithm of
    the peak over the standard deviation of the background's noise. Slices that are `missing` (B, slices) have no
    image.
    """

    images: npt.NDArray[np.float32]
    slices: int
    volume: npt.NDArray[np.int64]
    centres: FloatArray
    peak: FloatArray
    brightness: FloatArray
    missing: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class VolumeSource:
    """Draws volumes of optics whose PSF has the standard deviations `sigma` (z, y, x), in voxels.

    `light` is the mean background above the camera's offset, in grey values. PSFs are wider or narrower than
    `sigma` by up to `unlike`, by a factor of each volume and one of each particle and axis. A part `gaps` of the
    volumes lacks a slice or two. `slices` are the smallest and the largest number drawn.
    """

    sigma: tuple[float, float, float]
    noise: Noise
    light: float
    crowd: Crowd = field(default_factory=Crowd)
    surroundings: Surroundings = field(default_factory=Surroundings)
    slices: tuple[int, int] = (5, 14)
    gaps: float = 0.15
    unlike: float = 0.05
    add_light: AddLight = add_gaussians

    def draw(self, rng: np.random.Generator, shape: tuple[int, int], count: int) -> VolumeScene:
        """Draw `count` volumes of `shape` (H, W), all with the same number of slices."""
        depth = int(rng.integers(self.slices[0], self.slices[1] + 1))
        size = (depth, *shape)
        volumes, known, kept = np.empty((count, *size), np.float32), np.empty((count, *size), np.float32), []
        for number in range(count):
            volumes[number], known[number] = draw_background(self.surroundings, rng, self.light, size)
            placed = place(self.crowd, rng, size, self.sigma)
            like = self._unlike(rng, len(placed.snr))
            kept.append((np.full(len(placed.snr), number), placed.centres, placed.snr, like))
        volume, centres, snr, like = (np.concatenate(part) for part in zip(*kept, strict=True))
        there = np.clip(np.rint(centres), 0, np.array(size) - 1).astype(np.int64)
        variance = self.noise.variance(self.noise.offset + volumes[volume, *there.T])
        peak = peak_of(snr, variance, self.noise.gain)
        noise_sd = np.sqrt(self.noise.variance(self.noise.offset + volumes)).astype(np.float32)
        background = volumes + known * noise_sd
        self.add_light(volumes, volume, centres, peak, like * np.array(self.sigma))
        images = (self._seen(volumes, rng) - background) / noise_sd
        images *= (1 + rng.uniform(-1, 1, (count, 1, 1, 1)) * self.surroundings.noise).astype(np.float32)
        missing = self._gaps(rng, count, depth)
        images[missing] = ABSENT
        if depth % STEP:
            images = np.concatenate([images, np.full_like(images[:, :1], ABSENT)], axis=1)
        inside = ((centres >= -0.5) & (centres < np.array(size) - 0.5)).all(axis=1)
        brightness = np.log(peak / np.sqrt(variance))
        return VolumeScene(
            images, depth, volume[inside], centres[inside], peak[inside], brightness[inside], missing
        )

    def _unlike(self, rng: np.random.Generator, number: int) -> FloatArray:
        whole = 1 + self.unlike * rng.uniform(-1, 1)
        return np.asarray(whole * (1 + self.unlike * rng.uniform(-1, 1, (number, 3))))

    def _seen(self, mean: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """What a camera shows of this light above its offset, in whole grey values."""
        noise = self.noise
        seen = (
            np.float32(noise.gain) * counted(mean / np.float32(noise.gain), rng)
            if noise.gain
            else mean.copy()
        )
        if noise.read_variance:
            seen += np.float32(noise.read_variance**0.5) * rng.standard_normal(mean.shape, np.float32)
        return np.rint(seen)

    def _gaps(self, rng: np.random.Generator, count: int, depth: int) -> npt.NDArray[np.bool_]:
        missing = np.zeros((count, depth), np.bool_)
        for number in np.flatnonzero(rng.random(count) < self.gaps):
            missing[number, rng.choice(depth, min(depth - 1, int(rng.integers(1, 3))), replace=False)] = True
        return missing
