"""Measures the noise of a stack: variance against mean, in the background and in the beads (photon transfer)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from calibration.volumes.psf.fitting import BeadFits, expected, leverage
from calibration.volumes.psf.shapes import Shape
from calibration.volumes.windows import Windows
from engines.volumes.surroundings.noise import LEAST_VARIANCE, Noise

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LEVELS = 16
LEAST_VOXELS = 100
"""Voxels of a level, at least: its variance is then known to 14 %."""
CLIP = 6.0
"""Larger differences, in standard deviations, are no noise; of the noise of few photons nothing to speak of is
lost."""


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Variance of voxels at several mean grey values; `signal` is the mean square of what the beads add.

    `from_beads` tells the levels of the beads, whose variance includes what the PSF does not explain.
    """

    mean: FloatArray
    variance: FloatArray
    signal: FloatArray
    voxels: FloatArray
    from_beads: BoolArray


@dataclass(frozen=True, slots=True)
class MeasuredNoise:
    """The noise, the standard error of its gain, and `misfit`: rms of what the PSF leaves over, part of the
    signal."""

    model: Noise
    gain_error: float
    misfit: float
    offset_known: bool


def background_levels(volumes: npt.NDArray[Any], background: FloatArray, free: BoolArray) -> Levels:
    """Levels from 2 x 2 squares (differences along both axes of a slice) that are `free` of beads; all (T, Z, H,
    W).

    The mean is that of the smooth `background`: the squares' own mean has noise that is also in their differences.
    """
    height, width = volumes.shape[2] // 2 * 2, volumes.shape[3] // 2 * 2
    v = volumes[:, :, :height, :width]
    f = free[:, :, :height, :width]
    a, b, c, d = (v[:, :, i::2, j::2].astype(np.float64) for i in (0, 1) for j in (0, 1))
    open_ = f[:, :, ::2, ::2] & f[:, :, 1::2, ::2] & f[:, :, ::2, 1::2] & f[:, :, 1::2, 1::2]
    mean, difference = background[:, :, :height:2, :width:2][open_], ((a - b - c + d) / 2)[open_]
    return _binned(mean, difference**2, np.zeros_like(mean), beads=False)


def bead_levels(windows: Windows, shape: Shape, fits: BeadFits, noise: Noise) -> Levels:
    """Levels from the residuals of fitted beads, where their signal exceeds the noise of the background."""
    image = shape.image(fits.offset, windows.half)
    mean = expected(fits.parameters, image, windows.half)
    signal = fits.amplitude[:, None, None, None] * image
    seen = windows.counts & (signal > np.sqrt(noise.variance(mean)))
    squared = (windows.values - mean) ** 2 / (1 - leverage(windows, shape, noise, fits.parameters))
    return _binned(mean[seen], squared[seen], signal[seen] ** 2, beads=True)


def _binned(mean: FloatArray, squared: FloatArray, signal: FloatArray, *, beads: bool) -> Levels:
    count = int(np.clip(mean.size // LEAST_VOXELS, 0, LEVELS))
    order = np.argsort(mean, kind="stable")
    rows: list[tuple[float, float, float, float]] = []
    for part in np.array_split(order, count) if count else []:
        kept, chosen = squared[part], part
        for _ in range(4):
            limit = CLIP**2 * kept.mean()
            inside = squared[part] < limit
            kept, chosen = squared[part][inside], part[inside]
        rows.append((mean[chosen].mean(), kept.mean(), signal[chosen].mean(), kept.size))
    columns = np.array(rows).reshape(-1, 4).T
    mean_, variance, power, voxels = columns
    return Levels(mean_, variance, power, voxels, np.full(len(mean_), beads))


def joined(*levels: Levels) -> Levels:
    """All levels together."""
    return Levels(
        *(
            np.concatenate([getattr(one, name) for one in levels])
            for name in ("mean", "variance", "signal", "voxels", "from_beads")
        )
    )


def noise_from(levels: Levels, dark: tuple[float, float] | None = None) -> MeasuredNoise:
    """Gain, offset and read noise from levels; `dark` is the offset and read noise of a dark reference, if there
    is one.

    variance = constant + gain * mean + misfit^2 * signal, none of the last two negative. Without a dark reference
    only constant = read^2 - gain * offset is known, which is all that the variance needs: it is taken as read
    noise where it is positive, and as an offset where it is negative.
    """
    if not levels.mean.size:
        raise ValueError("no voxels to measure the noise from")
    variance = np.maximum(levels.variance, LEAST_VARIANCE)
    terms = np.stack(
        [np.ones_like(levels.mean), -np.ones_like(levels.mean), levels.mean, levels.signal], axis=1
    )
    wanted = levels.variance.copy()
    if dark is not None:
        offset, read = dark
        terms = np.stack([levels.mean - offset, levels.signal], axis=1)
        wanted = wanted - read**2
    for _ in range(6):
        weight = np.sqrt(levels.voxels / 2) / variance
        scale = np.maximum(np.abs(terms * weight[:, None]).max(axis=0), 1e-30)
        found = nnls(terms * weight[:, None] / scale, wanted * weight)[0] / scale
        variance = np.maximum(terms @ found + (read**2 if dark is not None else 0.0), LEAST_VARIANCE)
    normal = (terms * weight[:, None]).T @ (terms * weight[:, None])
    if dark is not None:
        gain, misfit = found
        error = _error(normal, 0)
        return MeasuredNoise(Noise(float(gain), offset, read**2), error, float(np.sqrt(misfit)), True)
    constant, gain, misfit = found[0] - found[1], float(found[2]), float(np.sqrt(found[3]))
    error = _error(np.delete(np.delete(normal, 1, 0), 1, 1), 1)
    if gain <= 0 or (error > 0.5 * gain and np.ptp(levels.mean) < 0.2 * levels.mean.max()):
        # hardly any range of brightness: all of it is taken as shot noise
        middle = float(np.average(levels.mean, weights=levels.voxels))
        typical = float(np.average(levels.variance, weights=levels.voxels))
        if middle > 0:
            return MeasuredNoise(Noise(typical / middle, 0.0, 0.0), np.inf, misfit, False)
        return MeasuredNoise(Noise(0.0, 0.0, typical), np.inf, misfit, False)
    if constant >= 0:
        return MeasuredNoise(Noise(gain, 0.0, float(constant)), error, misfit, False)
    return MeasuredNoise(Noise(gain, float(-constant / gain), 0.0), error, misfit, False)


def _error(normal: FloatArray, row: int) -> float:
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-30))
    scaled = normal / np.outer(scale, scale) + 1e-9 * np.eye(len(normal))
    return float(np.sqrt(np.linalg.inv(scaled)[row, row]) / scale[row])
