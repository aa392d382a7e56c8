"""Standard deviation of the bulk of values, from the median absolute deviation (MAD).

`scipy.stats.median_abs_deviation(values, scale="normal")` gives the same, but took ten times as long (0.7 ms, not
0.08 ms, for 200 values on a busy machine). Controllers need it in each frame, and profiles in each bin.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SIGMA_OF_MAD = 1.482602218505602
"""Standard deviation of a normal distribution over its median absolute deviation, 1 / norm.ppf(0.75)."""


def robust_sigma(values: npt.NDArray[np.float64]) -> float:
    """Standard deviation of the bulk of N >= 1 `values` (N,)."""
    return SIGMA_OF_MAD * float(np.median(np.abs(values - np.median(values))))
