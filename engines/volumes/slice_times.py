"""When a particle of a volume was seen: the times of the slices that show it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def times_of(
    z_um: FloatArray,
    heights_um: FloatArray,
    times_s: FloatArray,
    missing: npt.NDArray[np.bool_],
    sigma_um: float,
) -> FloatArray:
    """Time (N,) of particles at heights `z_um` (N,), by the light that each slice has of them.

    `heights_um`, `times_s` and `missing` (Z,) are the slices'. A slice counts by the square of the PSF there,
    which is its part in what is known of the particle. NaN where no slice has any.
    """
    distance = (z_um[:, None] - heights_um) / sigma_um
    nearest = np.where(missing, np.inf, np.abs(distance)).min(axis=1, initial=np.inf)
    nearest[~np.isfinite(nearest)] = 0.0
    weight = np.where(missing, 0.0, np.exp(np.minimum(nearest[:, None] ** 2 - distance**2, 0.0)))
    total = weight.sum(axis=1)
    return np.where(total > 0, (weight * times_s).sum(axis=1) / np.maximum(total, 1e-300), np.nan)
