"""Where in the model's depth range particles are found: a histogram of the last seconds, and how much it covers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 24
MEMORY_S = 10.0
COVERED = 0.1


class DepthCover:
    """Counts depths over a range, um; older ones fade with a time constant of ten seconds.

    A bin is covered where it holds at least a tenth of what it would if all depths were equally frequent.
    """

    def __init__(self, low_um: float, high_um: float) -> None:
        """Raises `ValueError` unless `low_um` is below `high_um`."""
        if not low_um < high_um:
            raise ValueError(f"a range of depths cannot go from {low_um:g} to {high_um:g} um")
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
        """JSON-able: the range and its edges, particles a frame in each bin, parts `covered` and `outside`."""
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
