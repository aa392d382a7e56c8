"""The light of particles in training volumes, drawn with the PSF; the Gaussian one as a product of three profiles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

REACH = 4.5
"""Standard deviations to which a Gaussian is drawn: 4e-5 of its peak is left out."""


@njit(cache=True, nogil=True)
def add_gaussians(light: Any, volume: Any, centres: Any, peaks: Any, sigmas: Any) -> None:
    """Add particles to `light` (B, Z, H, W): which volume (N,), centres (N, 3) z, y, x in voxels, peaks (N,), and
    standard deviations (N, 3)."""
    depth, height, width = light.shape[1], light.shape[2], light.shape[3]
    longest = max(depth, max(height, width))
    profiles = np.empty((3, longest))
    first, last = np.empty(3, np.int64), np.empty(3, np.int64)
    for n in range(centres.shape[0]):
        for axis in range(3):
            size = depth if axis == 0 else (height if axis == 1 else width)
            middle, sigma = centres[n, axis], sigmas[n, axis]
            first[axis] = max(0, math.ceil(middle - REACH * sigma))
            last[axis] = min(size - 1, math.floor(middle + REACH * sigma))
            for place in range(first[axis], last[axis] + 1):
                step = (place - middle) / sigma
                profiles[axis, place] = math.exp(-0.5 * step * step)
        own = light[volume[n]]
        for k in range(first[0], last[0] + 1):
            for j in range(first[1], last[1] + 1):
                factor = peaks[n] * profiles[0, k] * profiles[1, j]
                for i in range(first[2], last[2] + 1):
                    own[k, j, i] += factor * profiles[2, i]


def counted(mean: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Numbers of photoelectrons with these means: Poisson where few, else by its first terms of Cornish and Fisher.

    Of means from `FEW` on, mean, variance and skewness are those of the Poisson distribution to 1 %, in a tenth of
    the time.
    """
    normal = rng.standard_normal(mean.shape, np.float32)
    found = np.rint(mean + np.sqrt(np.maximum(mean, 0)) * normal + (normal * normal - 1) / 6)
    few = mean < FEW
    if few.any():
        found[few] = rng.poisson(np.maximum(mean[few], 0))
    return np.asarray(found, np.float32)


FEW = 6.0
"""Mean number of photoelectrons below which Poisson numbers are drawn as such."""
