"""Histogram of the depths found in the last seconds, and how much of the model's depth range it covers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 24  # so that a bar is still 10 px wide on a phone; `covered` changes in steps of 1 / 24
# s; the histogram follows a change of focus within it. At 24 frames/s and 30 particles a frame it then holds 300
# particles a bin, a counting error of 6 %.
MEMORY_S = 10.0
# Part of an even share: a bin with fewer particles is not covered. Well above what single ghost particles make up,
# and a tenth of what uneven seeding does; between 0.05 and 0.2 only bins at the edge of the range change.
COVERED = 0.1


class DepthCover:
    """Counts depths over a range, um; older counts decay with a time constant of ten seconds.

    A bin is covered where it holds at least a tenth of what it would if all depths were equally frequent.
    """

    def __init__(self, low_um: float, high_um: float) -> None:
        """Raises `ValueError` unless `low_um` is below `high_um`."""
        if not low_um < high_um:
            raise ValueError(f"a depth range must be increasing, not {low_um:g} to {high_um:g} um")
        self.edges_um = np.linspace(low_um, high_um, BINS + 1)
        self._counts = np.zeros(BINS)
        self._outside = 0.0
        self._frames = 0.0
        self._time_s = math.nan

    def add(self, z_um: npt.NDArray[np.float64], time_s: float) -> None:
        """Count one frame's depths (N,), um, taken at `time_s`; unknown ones (NaN) are left out."""
        passed_s = time_s - self._time_s
        fade = math.exp(-passed_s / MEMORY_S) if passed_s > 0 else 1.0
        self._time_s = time_s
        known = z_um[np.isfinite(z_um)]
        inside = np.histogram(known, self.edges_um)[0]
        self._counts = fade * self._counts + inside
        self._outside = fade * self._outside + float(known.size - inside.sum())
        self._frames = fade * self._frames + 1.0

    def facts(self) -> dict[str, Any]:
        """JSON-able: the range, its bins, particles per frame in each, the fractions `covered` and `outside`."""
        total = float(self._counts.sum())
        enough = self._counts >= COVERED * max(total, 1e-9) / BINS
        return {
            "low_um": float(self.edges_um[0]),
            "high_um": float(self.edges_um[-1]),
            "edges_um": [round(float(edge), 3) for edge in self.edges_um],
            "particles": [round(float(count) / max(self._frames, 1.0), 3) for count in self._counts],
            "covered": round(float(enough.mean()), 4) if total > 0 else 0.0,
            "outside": round(self._outside / max(total + self._outside, 1e-9), 4),
        }
