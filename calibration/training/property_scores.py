"""Scores of the properties of particles that a network learnt: errors, and errors over stated ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.network.learnt import LearntProperty

FloatArray = npt.NDArray[np.float64]
SHOWN = 600
"""Particles of which the truth and what was found are kept for a picture."""


@dataclass(frozen=True, slots=True, eq=False)
class PropertyScore:
    """Of one property: the rms error in its unit, that over its range, and the rms of error over standard error.

    `true` and `found` (K,) are those of some particles, `error` (K,) the standard errors.
    """

    name: str
    particles: int
    rms: float | None
    of_range: float
    calibration: float
    true: FloatArray
    found: FloatArray
    error: FloatArray


def score_property(
    learnt: LearntProperty, true: FloatArray, found: FloatArray, error: FloatArray
) -> PropertyScore:
    """The score of a property by its true and found values and standard errors (P,); unknown ones do not count."""
    known = np.isfinite(true) & np.isfinite(found) & (error > 0)
    true, found, error = true[known], found[known], error[known]
    away = learnt.difference(found, true)
    if not away.size:
        return PropertyScore(learnt.name, 0, None, math.nan, math.nan, true, found, error)
    rms = float(np.sqrt((away**2).mean()))
    over_stated = float(np.sqrt(((away / error) ** 2).mean()))
    some = slice(0, SHOWN)
    return PropertyScore(
        learnt.name, away.size, rms, rms / (learnt.high - learnt.low), over_stated,
        true[some], found[some], error[some],
    )  # fmt: skip
