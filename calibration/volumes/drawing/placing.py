"""Places and brightnesses of the particles of training volumes: few or many, alone or in groups, alike or not.

Nothing is taken from one experiment: densities are per size of the PSF, and brightnesses follow from
signal-to-noise ratios, so that what holds in use lies within what is drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Crowd:
    """How particles are drawn; every volume draws its own density, grouping and brightnesses.

    `filled` is the part of the volume that particles fill, each (2 pi)^1.5 times the product of the PSF's standard
    deviations: 0.013 for 1000 particles in the challenge's 512 x 512 x 10 voxels. A part `grouped` of the volumes
    has partners within `near` standard deviations of the PSF for half of the particles. `snr` is the peak over the
    noise at the peak; a part `bright` of the volumes draws it from `bright_snr`. `spread` is the largest standard
    deviation of the logarithm of the brightness in a volume, `mixed` the part of volumes where every particle draws
    its own ratio from the whole range. A part `beyond` of the volumes also has particles outside, up to
    `beyond_sigmas` away.
    """

    filled: tuple[float, float] = (4e-4, 0.045)
    grouped: float = 0.35
    near: tuple[float, float] = (0.8, 2.5)
    snr: tuple[float, float] = (0.8, 8.0)
    bright: float = 0.15
    bright_snr: tuple[float, float] = (8.0, 40.0)
    spread: float = 0.4
    mixed: float = 0.2
    beyond: float = 0.5
    beyond_sigmas: float = 2.5


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Particles of one volume: centres (N, 3) along z, y, x in voxels, signal-to-noise ratios (N,)."""

    centres: FloatArray
    snr: FloatArray


def place(
    crowd: Crowd, rng: np.random.Generator, shape: tuple[int, int, int], sigma: tuple[float, float, float]
) -> Placed:
    """The particles of a volume of `shape` (Z, H, W), some of them outside, for a PSF of `sigma` (z, y, x)."""
    size, widths = np.array(shape, np.float64), np.array(sigma)
    margin = crowd.beyond_sigmas * widths if rng.random() < crowd.beyond else np.zeros(3)
    low, high = -0.5 - margin, size - 0.5 + margin
    per_voxel = _between(rng, crowd.filled) / ((2 * math.pi) ** 1.5 * float(widths.prod()))
    number = int(rng.poisson(per_voxel * float((high - low).prod())))
    centres = rng.uniform(low, high, (number, 3))
    if rng.random() < crowd.grouped:
        leaders = rng.integers(0, max(1, number), number)
        follows = rng.random(number) < 0.5
        step = rng.uniform(*crowd.near) * widths * rng.standard_normal((number, 3))
        centres = np.where(follows[:, None], centres[leaders] + step, centres)
        centres = centres[((centres >= low) & (centres < high)).all(axis=1)]
    return Placed(centres, _ratios(crowd, rng, len(centres)))


def _ratios(crowd: Crowd, rng: np.random.Generator, number: int) -> FloatArray:
    if rng.random() < crowd.mixed:
        low, high = crowd.snr[0], crowd.bright_snr[1] if rng.random() < crowd.bright else crowd.snr[1]
        return np.asarray(np.exp(rng.uniform(math.log(low), math.log(high), number)))
    typical = _between(rng, crowd.bright_snr if rng.random() < crowd.bright else crowd.snr)
    spread = rng.uniform(0.0, crowd.spread) if rng.random() < 0.5 else 0.0
    return np.asarray(typical * np.exp(spread * rng.standard_normal(number)))


def _between(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    """Drawn evenly on a logarithmic scale."""
    return float(np.exp(rng.uniform(math.log(ends[0]), math.log(ends[1]))))


def peak_of(snr: npt.ArrayLike, background_variance: npt.ArrayLike, gain: float) -> FloatArray:
    """Height A of a peak, in grey values, with `snr` = A / sqrt(gain A + variance of the background)."""
    ratio = np.asarray(snr, np.float64)
    shot = 0.5 * gain * ratio**2
    return np.asarray(shot + np.sqrt(shot**2 + ratio**2 * np.asarray(background_variance, np.float64)))
