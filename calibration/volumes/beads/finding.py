"""Finds beads of unknown size in a volume: a first look, their size from the best of them, then a matched
filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from calibration.volumes.beads.background import background_of, noise_of
from calibration.volumes.psf.fitting import LINEAR, fit_beads
from calibration.volumes.psf.shapes import GaussianShape
from calibration.volumes.windows import cut
from engines.volumes.surroundings.noise import Noise

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FIRST_SIGMAS = ((0.6, 1.0, 1.0), (1.5, 1.5, 1.5), (3.0, 1.5, 1.5), (3.0, 3.0, 3.0))
"""Widths (z, y, x; voxels) of the filters of the first look: between them none is more than a factor 2 off for
beads of 0.8 to 4 voxels, and a matched filter of twice the width still has 0.72 of the signal to noise."""
SEEN = 5.0
"""Strength (amplitude over its standard error) of a candidate: of a million voxels of noise less than one has
it."""
BEST = 40
"""Candidates whose widths are measured in the first look."""
NARROWEST, WIDEST = 0.45, 8.0
"""Standard deviations that a bead may have, voxels: narrower is a hot pixel, wider is not a bead of this stack."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Places (N, 4: time, z, y, x) of local maxima with their `strength` and `amplitude` (N,), strongest first."""

    place: IntArray
    strength: FloatArray
    amplitude: FloatArray

    def __len__(self) -> int:
        return len(self.place)


def filtered(
    volume: FloatArray, sigma: FloatArray, noise: FloatArray | float
) -> tuple[FloatArray, FloatArray]:
    """Strength and amplitude (Z, H, W) of a Gaussian spot at each voxel, by the matched filter with equal
    weights."""
    smooth = ndimage.gaussian_filter(volume, sigma, mode="constant", truncate=3.0)
    kernels = [np.exp(-0.5 * (np.arange(-int(3 * s + 0.5), int(3 * s + 0.5) + 1) / s) ** 2) for s in sigma]
    area = np.prod([k.sum() for k in kernels])
    squares = ndimage.gaussian_filter(
        np.ones(volume.shape), sigma / np.sqrt(2), mode="constant", truncate=4.0
    )
    power = squares * np.prod([(k**2).sum() for k in kernels])
    amplitude = smooth * area / power
    return amplitude * np.sqrt(power) / noise, amplitude


def find(volumes: npt.NDArray[Any], sigma: FloatArray, least: float = SEEN) -> Candidates:
    """Local maxima of the matched filter for spots of `sigma` (3,) in volumes (T, Z, H, W)."""
    places, strengths, amplitudes = [], [], []
    size = tuple(2 * max(1, round(float(s))) + 1 for s in sigma)
    for time, volume in enumerate(volumes):
        strength, amplitude = filtered(volume - background_of(volume), sigma, noise_of(volume))
        peaks = (strength == ndimage.maximum_filter(strength, size=size)) & (strength > least)
        found = np.argwhere(peaks)
        places.append(np.column_stack([np.full(len(found), time), found]))
        strengths.append(strength[peaks])
        amplitudes.append(amplitude[peaks])
    place, strength, amplitude = (np.concatenate(parts) for parts in (places, strengths, amplitudes))
    order = np.argsort(-strength, kind="stable")
    return Candidates(place[order].astype(np.int64), strength[order], amplitude[order])


def size_of_beads(volumes: npt.NDArray[Any]) -> FloatArray | None:
    """Standard deviations (3,) of the beads along z, y, x, voxels, from the best candidates; None without any.

    Each filter of `FIRST_SIGMAS` proposes its strongest maxima, which are fitted with free widths; the median of
    those that are like beads is taken, and measured again in windows of the right size.
    """
    sigma: FloatArray | None = None
    first = volumes[:1]
    background = background_of(first[0])
    model = Noise(0.0, 0.0, float(np.median(noise_of(first[0])) ** 2))
    clean = first[0] - background
    proposals = []
    for guess in FIRST_SIGMAS:
        found = find(first, np.asarray(guess), 2 * SEEN)
        if len(found):
            proposals.append(_widths(clean[None], _apart(found, 6.0), np.asarray(guess), model))
    proposals = [p for p in proposals if len(p) >= 1]
    if not proposals:
        return None
    widths = np.concatenate(proposals)
    sigma = np.exp(np.median(np.log(widths), axis=0))
    for _ in range(3):
        found = find(first, sigma, 2 * SEEN)
        if not len(found):
            return sigma
        widths = _widths(clean[None], _apart(found, 5.0 * float(sigma.max())), sigma, model)
        if not len(widths):
            return sigma
        new = np.exp(np.median(np.log(widths), axis=0))
        done = np.abs(np.log(new / sigma)).max() < 0.03
        sigma = new
        if done:
            break
    return sigma


def _apart(found: Candidates, distance: float) -> Candidates:
    """The strongest candidates that have no stronger one nearby."""
    kept: list[int] = []
    for index in range(min(len(found), 10 * BEST)):
        delta = found.place[kept][:, 1:] - found.place[index, 1:] if kept else np.empty((0, 3))
        if not (np.abs(delta).max(axis=1) < distance).any():
            kept.append(index)
        if len(kept) == BEST:
            break
    return Candidates(found.place[kept], found.strength[kept], found.amplitude[kept])


def half_of(sigma: FloatArray, reach: float, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Half the edges of a window that reaches `reach` sigmas, at least 2 voxels and no more than the volume."""
    return tuple(  # type: ignore[return-value]
        int(min(max(2, np.ceil(reach * float(s))), max(2, limit - 1)))
        for s, limit in zip(sigma, shape, strict=True)
    )


def _widths(volumes: FloatArray, found: Candidates, sigma: FloatArray, noise: Noise) -> FloatArray:
    """Widths (M, 3) of the candidates that are fitted well by a Gaussian of their own."""
    half = half_of(sigma, 3.2, volumes.shape[1:])
    windows = cut(volumes, found.place, half)
    fits = fit_beads(windows, GaussianShape(sigma), noise, free_width=True, slopes=False, bound=2.0)
    log, error = fits.parameters[:, LINEAR:], fits.errors[:, LINEAR:]
    width = np.exp(log)
    inside = (np.abs(fits.offset) < 1.9).all(axis=1)
    known = (error < 0.3).all(axis=1) & inside & (np.abs(log - np.log(sigma)) < 1.15).all(axis=1)
    known &= (width > NARROWEST).all(axis=1) & (width < WIDEST).all(axis=1)
    return np.asarray(width[known])
