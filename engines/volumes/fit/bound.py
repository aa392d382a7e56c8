"""The Cramer-Rao bound: how well particles of a volume can be located at all, alone or beside one another.

    F_ij = sum_k (d_i mu_k) (d_j mu_k) / V_k,   cov >= F^-1                               (1)

over the voxels k of the slices that there are, with the unknowns z, y, x and amplitude of each particle and one
even background (Kay 1993, Fundamentals of Statistical Signal Processing: Estimation Theory, chapter 3; for single
molecules in three dimensions Ober et al. 2004, Biophysical Journal 86, 1185). V = gain mu + read variance.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engines.volumes.psf import VolumePsf
from engines.volumes.surroundings.noise import Noise

FloatArray = npt.NDArray[np.float64]

REACH = 1.6
"""The window reaches so many times as far as the fit looks: nothing that tells a place is beyond."""


def bound(
    places: FloatArray,
    amplitudes: FloatArray,
    background: float,
    psf: VolumePsf,
    noise: Noise,
    depth: int,
    *,
    missing: npt.NDArray[np.bool_] | None = None,
    heights_um: FloatArray | None = None,
    background_sd: float | None = None,
) -> FloatArray:
    """The least covariance (N, 4, 4) of z, y, x (voxels) and amplitude of N particles that are fitted together.

    `places` (N, 3) are z, y, x in voxels, in a stack of `depth` slices without borders along y and x. `background`
    is in grey values with the offset; it is unknown, or known to `background_sd`. Missing slices and heights are as
    in `fit_spots`. Infinite where nothing is known of a particle.
    """
    voxel, reach = np.array(psf.voxel_um), REACH * np.array(psf.reach_um) / psf.voxel_um
    heights = np.arange(depth, dtype=np.float64) if heights_um is None else np.asarray(heights_um) / voxel[0]
    seen = np.ones(depth, bool) if missing is None else ~missing
    low, high = np.floor(places.min(axis=0) - reach), np.ceil(places.max(axis=0) + reach)
    inside = seen & (heights >= low[0]) & (heights <= high[0])
    axes = heights[inside], np.arange(low[1], high[1] + 1), np.arange(low[2], high[2] + 1)
    grid = np.meshgrid(*axes, indexing="ij")
    rows, light = [], np.full(grid[0].shape, background, np.float64)
    for place, amplitude in zip(places, amplitudes, strict=True):
        off = [(g - p) * v for g, p, v in zip(grid, place, voxel, strict=True)]
        value = psf.value(*off)
        light += amplitude * value
        rows += [amplitude * d * v for d, v in zip(psf.derivatives(*off), voxel, strict=True)] + [value]
    jacobian = np.stack([*rows, np.ones_like(light)]).reshape(4 * len(places) + 1, -1)
    variance = np.maximum(noise.gain * (light - noise.offset) + noise.read_variance, 1e-12).ravel()
    information = (jacobian / variance) @ jacobian.T
    if background_sd is not None:
        information[-1, -1] += 1 / background_sd**2
    try:
        whole = np.linalg.inv(information)
    except np.linalg.LinAlgError:
        return np.full((len(places), 4, 4), np.inf)
    return np.stack([whole[4 * k : 4 * k + 4, 4 * k : 4 * k + 4] for k in range(len(places))])


def least_errors(covariance: FloatArray) -> FloatArray:
    """Least standard errors (N, 4) of z, y, x (voxels) and amplitude, of the result of `bound`."""
    return np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
