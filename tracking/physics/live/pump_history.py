"""The pump's set-point over the last seconds, and whether it makes another flow."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

ANOTHER_FLOW = 0.05
"""Relative change of the set-point from which on the flow counts as another one. Below, the flow is taken as
proportional to the set-point (corrections of a controller that has settled): a pump's gain changes by less than a
tenth over so little, which leaves 0.5 % at most. Higher, more of what is known is kept with a larger such error."""
KEPT = 1000
"""Changes that are remembered. A piece of a track is at most seconds long, a controller commands twice a second."""


class PumpHistory:
    """Follows the set-point, frame by frame; NaN where there is no pump.

    `reference_ul_s` is the set-point that the flow is fitted at, `now_ul_s` the present one.
    """

    def __init__(self, kept: int | None = KEPT) -> None:
        """`kept`: how many of the last changes are remembered; None: all."""
        self.reference_ul_s = self.now_ul_s = math.nan
        self._changes: deque[tuple[float, float]] = deque(maxlen=kept)
        self._seen = False

    def see(self, time_s: float, flow_ul_s: float) -> bool:
        """Note the set-point of a frame; True if that is another flow, which then is the reference."""
        first, self._seen = not self._seen, True
        if not self._changes or not _same(flow_ul_s, self.now_ul_s, 0.0):
            self._changes.append((time_s, flow_ul_s))
        self.now_ul_s = flow_ul_s
        if first or not is_another_flow(flow_ul_s, self.reference_ul_s):
            if first:
                self.reference_ul_s = flow_ul_s
            return False
        self.reference_ul_s = flow_ul_s
        return True

    @property
    def rests(self) -> bool:
        """Whether the pump is known to stand still."""
        return self.now_ul_s == 0.0

    @property
    def factor(self) -> float:
        """The present flow over that at the reference."""
        return self._over_reference(self.now_ul_s)

    def factors(self, begin_s: FloatArray, end_s: FloatArray) -> FloatArray:
        """Mean flow over that at the reference, (M,), during pieces of time."""
        if not self._changes or not self.reference_ul_s or math.isnan(self.reference_ul_s):
            return np.ones_like(begin_s)
        since_s, flow = np.array(self._changes).T
        known = np.isfinite(flow)
        since_s, flow = since_s[known], flow[known]
        # The integral of a function that is constant between changes is linear in between.
        integral = np.concatenate([[0.0], np.cumsum(flow[:-1] * np.diff(since_s))])

        def up_to(time_s: FloatArray) -> FloatArray:
            at = np.maximum(np.searchsorted(since_s, time_s, side="right") - 1, 0)
            value: FloatArray = integral[at] + flow[at] * (time_s - since_s[at])
            return value

        span_s = np.maximum(end_s - begin_s, 1e-9)
        factors: FloatArray = (up_to(begin_s + span_s) - up_to(begin_s)) / span_s / self.reference_ul_s
        return factors

    def _over_reference(self, flow_ul_s: float) -> float:
        factor = flow_ul_s / self.reference_ul_s if self.reference_ul_s else math.nan
        return factor if math.isfinite(factor) else 1.0


def is_another_flow(flow_ul_s: float, other_ul_s: float) -> bool:
    """Whether two set-points are of different flows; one that is not known differs from one that is."""
    return not _same(flow_ul_s, other_ul_s, ANOTHER_FLOW)


def _same(flow_ul_s: float, other_ul_s: float, part: float) -> bool:
    """Whether two set-points differ by at most this part; two that are not known are the same."""
    if math.isnan(flow_ul_s) or math.isnan(other_ul_s):
        return math.isnan(flow_ul_s) and math.isnan(other_ul_s)
    return abs(flow_ul_s - other_ul_s) <= part * max(abs(flow_ul_s), abs(other_ul_s))
