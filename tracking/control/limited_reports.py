"""Reports that may come with every frame: the same one is passed on at most once a second."""

from __future__ import annotations

import time
from collections.abc import Callable

REPORT_S = 1.0
"""Shortest time between two reports of the same thing, s: few enough lines to read, soon enough to act on. It only
changes how much is printed."""


class LimitedReports:
    """Passes reports on to `report`; those in between are counted and the count is given with the next one."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._last: dict[str, tuple[float, int]] = {}

    def __call__(self, what: str, why: str) -> None:
        """Report `what` happened, and `why`; reports with an equal `what` count as the same."""
        now_s = time.monotonic()
        reported_s, left_out = self._last.get(what, (0.0, 0))
        if now_s - reported_s < REPORT_S:
            self._last[what] = (reported_s, left_out + 1)
            return
        self._last[what] = (now_s, 0)
        self._report(f"{what}: {why}" + (f" ({left_out} more before)" if left_out else ""))
