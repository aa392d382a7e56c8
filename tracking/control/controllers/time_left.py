"""How long it will take until a standard error has fallen to the one that is wanted."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import nnls

FEWEST = 4
"""Errors from which on a part that does not fall is looked for; before, all of it is expected to fall."""
KEPT = 64
"""Errors that are kept: every second one is left out when there are more, so that they span the whole time."""


class TimeLeft:
    """Follows a standard error over the time of measurement t: error^2 = a + b / t.

    b / t is what more particles average out, a what stays: an error that all of them share, or that came from
    before. Both are the non-negative ones that suit the relative errors best (least squares).
    """

    def __init__(self, wanted: float) -> None:
        self.wanted = wanted
        self._since_s = math.nan
        self._known: list[tuple[float, float]] = []

    def add(self, since_s: float, now_s: float, error: float) -> None:
        """Take in the error at `now_s` of a measurement since `since_s`; begins anew where that is another one."""
        if since_s != self._since_s:
            self._since_s, self._known = since_s, []
        if now_s > since_s and math.isfinite(error) and error > 0:
            self._known.append((now_s - since_s, error**2))
            if len(self._known) > KEPT:
                del self._known[1:-1:2]

    def known_at_s(self) -> float:
        """When the error is, or was, the wanted one; infinite if never, NaN if unknown."""
        return self._since_s + self._known[-1][0] + self.left_s() if self._known else math.nan

    def left_s(self) -> float:
        """Time from the last error until it is the wanted one, s: 0 if it is, infinite if never, NaN if unknown."""
        if not self._known:
            return math.nan
        times, squares = np.array(self._known).T
        now_s, now, wanted = float(times[-1]), float(squares[-1]), self.wanted**2
        if now <= wanted:
            return 0.0
        stays, falls = 0.0, now * now_s
        if len(times) >= FEWEST:
            model = np.stack([np.ones_like(times), 1.0 / times], axis=1) / squares[:, None]
            (stays, falls), _ = nnls(model, np.ones_like(times))
        if wanted <= stays or falls == 0:
            return math.inf
        return max(float(falls) / (wanted - float(stays)) - now_s, 0.0)
