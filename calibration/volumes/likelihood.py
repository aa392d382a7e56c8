"""How much less likely voxels are under a model than under a perfect fit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engines.volumes.surroundings.noise import LEAST_VARIANCE, Noise

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def deviance(noise: Noise, value: FloatArray, mean: FloatArray, counts: BoolArray) -> FloatArray:
    """Twice the loss of log likelihood of each voxel against a perfect fit; 0 where it does not count.

    Shot noise and read noise together are nearly Poisson in (value - offset)/gain + read variance/gain^2 (Huang
    et al. 2013, Nature Methods 10, 653).
    """
    if noise.gain <= 0:
        return np.where(counts, (value - mean) ** 2 / noise.variance(mean), 0.0)
    shift = noise.read_variance / noise.gain - noise.offset
    least = LEAST_VARIANCE / noise.gain
    seen = np.maximum(value + shift, 0.0) / noise.gain
    fitted = np.maximum(mean + shift, least) / noise.gain
    log = np.where(seen > 0, seen * np.log(np.maximum(seen, 1e-300) / fitted), 0.0)
    return np.where(counts, 2 * (log - seen + fitted), 0.0)
