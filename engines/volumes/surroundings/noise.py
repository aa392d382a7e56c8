"""The noise of a voxel: shot noise and read noise, in grey values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LEAST_VARIANCE = 1 / 12
"""Variance of rounding to whole grey values: no voxel is known better."""


@dataclass(frozen=True, slots=True)
class Noise:
    """variance = gain * (value - offset) + read_variance, in grey values squared.

    `gain` is in grey values per photoelectron, `offset` the grey value without light, `read_variance` the
    variance without light. `gain` 0: the same noise everywhere.
    """

    gain: float
    offset: float
    read_variance: float

    def variance(self, value: npt.ArrayLike) -> npt.NDArray[Any]:
        """Variance of voxels with this mean grey value; never below that of rounding."""
        light = np.maximum(np.asarray(value, np.float64) - self.offset, 0.0)
        return np.maximum(self.gain * light + self.read_variance, LEAST_VARIANCE)

    def times(self, factor: float) -> Noise:
        """The noise of `factor` times the variance."""
        return Noise(self.gain * factor, self.offset, self.read_variance * factor)
