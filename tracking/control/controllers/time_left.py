"""How long it will take until a standard error has fallen to the one that is wanted."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

FloatArray = npt.NDArray[np.float64]

RECENT = 8
"""Errors by which the next ones are foreseen: more see less of a change, fewer more of the noise."""
STAYS_SURE = 0.25
"""Sum of squares with a part that stays, over that without, from which there is one. Higher, noise in the errors
makes a part that stays, and the time left too long: at 1 by a tenth."""
LAGS = np.linspace(0.0, 0.9, 10)
"""Times from which information counts, over that of the first error: what comes in is as old as a track."""
KEPT = 64
"""Errors that are kept: every second one is left out when there are more, so that they span the whole time."""


class TimeLeft:
    """Follows a standard error over the time of measurement t.

    Information comes in evenly: 1 / error^2 grows in a straight line. Where all errors so far are told much better
    by error^2 = a + b / (t - lag), a part a stays: an error that all particles share, or that came from before.
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
        if squares[-1] <= self.wanted**2:
            return 0.0
        if len(times) < 3:
            return float(times[-1] * (squares[-1] / self.wanted**2 - 1.0))
        if (stays := _part_that_stays(times, squares)) is not None:
            a, b, lag = stays
            return (
                max(b / (self.wanted**2 - a) + lag - float(times[-1]), 0.0)
                if self.wanted**2 > a
                else math.inf
            )
        recent, known = times[-RECENT:] - times[-1], 1.0 / squares[-RECENT:]
        rate, now = np.polyfit(recent, known, 1)
        return max(float((1.0 / self.wanted**2 - now) / rate), 0.0) if rate > 0 else math.inf


def _part_that_stays(times: FloatArray, squares: FloatArray) -> tuple[float, float, float] | None:
    """a, b and lag of error^2 = a + b / (t - lag), the ones that suit the relative errors best; None if a is not
    sure."""
    if len(times) < RECENT:
        return None
    best, without = (math.inf, 0.0, 0.0, 0.0), math.inf
    for lag in LAGS * times[0]:
        falls = 1.0 / (times - lag) / squares
        (a, b), left = nnls(np.stack([1.0 / squares, falls], axis=1), np.ones_like(times))
        best = min(best, (left**2, a, b, lag))
        without = min(without, float(((1.0 - falls * falls.sum() / (falls @ falls)) ** 2).sum()))
    return best[1:] if best[0] < STAYS_SURE * without else None
