"""How many maxima noise alone has in a filtered volume.

White noise after a matched filter is a Gaussian random field. Above a level t it has, to a very good approximation
from t = 2.5 on, as many maxima as its excursion set has pieces less holes (Adler, The Geometry of Random Fields,
1981; Worsley et al. 1996, Human Brain Mapping 4, 58):

    N(t) = sum_d R_d rho_d(t)    (1)

with R_d the size of the volume in d dimensions (volume, half the surface, edges, corners) in units of the
noise's own length, and rho_d(t) = (2 pi)^(-(d+1)/2) He_(d-1)(t) exp(-t^2/2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

FloatArray = npt.NDArray[np.float64]

MATCHED_ROUGHNESS = 0.5
"""Variance of the slope of white noise after a Gaussian filter, times sigma^2 over its variance."""
LAPLACIAN_ROUGHNESS = 7 / 6
"""The same after a Laplacian of Gaussian in three dimensions: Gamma(9/2) / Gamma(7/2) / 3."""


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """Maxima of noise in a volume; `sizes` are R_0 to R_3 of (1)."""

    sizes: tuple[float, float, float, float]

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        sigma_voxels: tuple[float, float, float],
        roughness: float = MATCHED_ROUGHNESS,
    ) -> FalseAlarms:
        """Those in a volume of `shape` (Z, H, W) filtered for spots of `sigma_voxels` (z, y, x)."""
        z, y, x = ((n - 1) * math.sqrt(roughness) / s for n, s in zip(shape, sigma_voxels, strict=True))
        return cls((1.0, z + y + x, z * y + y * x + x * z, z * y * x))

    @property
    def dimensions(self) -> int:
        """In how many dimensions a maximum can move."""
        return max(d for d, size in enumerate(self.sizes) if size > 0)

    def above(self, t: npt.ArrayLike) -> FloatArray:
        """Expected number of maxima above t, (1)."""
        t = np.asarray(t, np.float64)
        r0, r1, r2, r3 = self.sizes
        bell = np.exp(-0.5 * t**2)
        two_pi = 2 * math.pi
        surfaces = r1 / two_pi + r2 * t / two_pi**1.5 + r3 * (t**2 - 1) / two_pi**2
        return np.asarray(r0 * ndtr(-t) + bell * surfaces)

    def density(self, t: npt.ArrayLike) -> FloatArray:
        """Expected number of maxima at t, per unit of t; from t = 2 on."""
        t = np.asarray(t, np.float64)
        r0, r1, r2, r3 = self.sizes
        bell = np.exp(-0.5 * t**2)
        two_pi = 2 * math.pi
        slopes = (
            r0 / math.sqrt(two_pi)
            + r1 * t / two_pi
            + r2 * (t**2 - 1) / two_pi**1.5
            + r3 * (t**3 - 3 * t) / two_pi**2
        )
        return np.asarray(bell * slopes)


def signed_root(strength: npt.ArrayLike, skewness: npt.ArrayLike) -> FloatArray:
    """Answers of a linear filter to noise of this skewness, as normal ones that are as rare.

    The root of twice the log-likelihood ratio of a Poisson number that has this skewness (1 / sqrt(mean)): at low
    light, noise above the background is more frequent than below.
    """
    s = np.asarray(strength, np.float64)
    mean = 1 / np.maximum(np.asarray(skewness, np.float64), 1e-4) ** 2
    ratio = np.maximum(1 + s / np.sqrt(mean), 1e-12)
    return np.asarray(np.sign(s) * np.sqrt(np.maximum(2 * mean * (ratio * np.log(ratio) - (ratio - 1)), 0.0)))
