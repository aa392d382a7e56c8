"""Standard deviation from the median absolute deviation (MAD), for numba kernels and for deviations from zero.

Elsewhere `scipy.stats.median_abs_deviation(values, scale="normal")` does the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Float32Array = npt.NDArray[np.float32]

SIGMA_OF_MAD = 1.482602218505602
"""Standard deviation of a normal distribution over its median absolute deviation, 1 / norm.ppf(0.75)."""


@njit(cache=True, nogil=True)
def robust_sigma(values: Float32Array, stride: int) -> float:
    """Return the standard deviation of every `stride`-th value, from the median absolute deviation."""
    flat = values.ravel()[::stride].copy()
    return float(SIGMA_OF_MAD * np.median(np.abs(flat - np.median(flat))))
