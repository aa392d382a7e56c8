"""Frames per second, measured over windows of about a second."""

from __future__ import annotations

import time

WINDOW_S = 1.0  # s; in shorter windows one frame more or less shows as a jump, longer ones show a change late


class FrameRate:
    """Counts frames; `per_s` is the rate over the last full window, NaN during the first one."""

    def __init__(self) -> None:
        self._begun_s = time.monotonic()
        self._counted = 0
        self._per_s = float("nan")

    def count(self) -> None:
        """Count one frame."""
        self._counted += 1

    def per_s(self) -> float:
        """Frames/s; ends the window if it has lasted long enough."""
        now_s = time.monotonic()
        span_s = now_s - self._begun_s
        if span_s >= WINDOW_S:
            self._per_s = self._counted / span_s
            self._begun_s, self._counted = now_s, 0
        return self._per_s
