"""Statistics for controllers: particles of a class, heights, and robust averages weighted by standard errors."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from stream.messages import Tracks
from tracking.analysis.robust import SIGMA_OF_MAD, robust_sigma

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

MEDIAN_LOSS = 1.2533
"""Standard error of a median over that of a mean, sqrt(pi / 2), for many Gaussian values."""
CLIP = 4.0
"""Values farther from the median than this many standard deviations are left out: 6 in 100,000 of Gaussian values
(at 3 it would be 1 in 400). A higher limit lets more wrong links in."""


def of_kind(tracks: Tracks, kind: int | None, least_p: float) -> BoolArray:
    """Rows (N,) of particles that are of a class with at least this probability; all rows for None."""
    if kind is None:
        return np.ones(len(tracks), np.bool_)
    chosen: BoolArray = (tracks.kind == kind) & (tracks.p_kind >= least_p)
    return chosen


def heights_um(tracks: Tracks) -> FloatArray:
    """Height (focus position + z) of each row, (N,) um; z alone if the focus is not known."""
    focus_um = tracks.info.focus_um
    height: FloatArray = tracks.z_um + (focus_um if math.isfinite(focus_um) else 0.0)
    return height


def weighted_median(values: FloatArray, sigma: FloatArray) -> tuple[float, float]:
    """Median and its standard error of N >= 1 `values` (N,) weighted by 1 / (sigma^2 + scatter^2).

    A `sigma` (N,) that is NaN counts as the largest known one.
    """
    worst = float(np.nanmax(sigma)) if np.isfinite(sigma).any() else 0.0
    variance = np.where(np.isfinite(sigma), sigma, worst) ** 2 + robust_sigma(values) ** 2
    weight = 1.0 / np.maximum(variance, 1e-300) if (variance > 0).all() else np.ones_like(values)
    order = np.argsort(values)
    passed = np.cumsum(weight[order])
    low = int(np.searchsorted(passed, 0.5 * passed[-1] * (1 - 1e-12)))
    high = int(np.searchsorted(passed, 0.5 * passed[-1] * (1 + 1e-12)))
    middle = 0.5 * float(values[order[low]] + values[order[min(high, len(values) - 1)]])
    error = MEDIAN_LOSS / math.sqrt(passed[-1]) if (variance > 0).all() else 0.0
    return middle, error


def clipped_mean(values: FloatArray, sigma: FloatArray, clip: float = CLIP) -> float:
    """Mean of N >= 1 `values` (N,) weighted by 1 / sigma^2, without those beyond `clip` times the scatter."""
    off = np.abs(values - np.median(values))
    inside = off <= clip * SIGMA_OF_MAD * np.median(off)
    known = np.isfinite(sigma).all() and (sigma > 0).all()
    weight = 1.0 / sigma[inside] ** 2 if known else None
    return float(np.average(values[inside], weights=weight))
