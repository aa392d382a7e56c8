"""Device settings over time, so that a frame gets those that held when it was exposed."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from operator import attrgetter

KEPT = 4096  # readings: three minutes at 20 a second, far longer than a frame can wait in a camera's buffer


@dataclass(frozen=True, slots=True)
class Reading:
    """Settings of the devices at one time (`time.perf_counter_ns`); NaN without such a device."""

    time_ns: int
    focus_um: float
    focus_commanded_um: float
    flow_ul_s: float
    exposure_ms: float
    pixel_size_um: float = math.nan


class Readings:
    """The latest readings, in order of time; those older than any frame still to come are dropped."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque(maxlen=KEPT)

    def add(self, reading: Reading) -> None:
        """Keep a reading that is not older than the last one."""
        self._readings.append(reading)

    def at(self, time_ns: int) -> Reading:
        """The settings at a time; before the first reading, that reading.

        Raises `IndexError` without any reading.
        """
        return self._readings[max(0, self._after(time_ns) - 1)]

    def focus_um(self, time_ns: int) -> float:
        """The focus position at a time, um, interpolated linearly between the readings around it."""
        index = self._after(time_ns)
        before = self.at(time_ns)
        if index in {0, len(self._readings)}:
            return before.focus_um
        after = self._readings[index]
        part = (time_ns - before.time_ns) / (after.time_ns - before.time_ns)
        return before.focus_um + part * (after.focus_um - before.focus_um)

    def _after(self, time_ns: int) -> int:
        return bisect_right(self._readings, time_ns, key=attrgetter("time_ns"))

    def exposure_ms(self, arrived_ns: int, period_ns: float, interval_ns: float) -> float:
        """Exposure of a frame that arrived at `arrived_ns`, `interval_ns` after the previous one, ms.

        Around a change it is the longest exposure that the frame can have had: the exposure began at most that
        time and one period before the arrival, and was no longer than the interval (plus a period of jitter).
        """
        longest_ms = -math.inf
        ended_ns: float = math.inf
        for reading in reversed(self._readings):
            exposure_ns = 1e6 * reading.exposure_ms
            if reading.time_ns <= arrived_ns:
                is_current = longest_ms < 0
                could_be = (
                    arrived_ns - exposure_ns - period_ns < ended_ns and exposure_ns <= interval_ns + period_ns
                )
                if is_current or could_be:
                    longest_ms = max(longest_ms, reading.exposure_ms)
            ended_ns = reading.time_ns
        return longest_ms if longest_ms >= 0 else self._readings[0].exposure_ms

    def forget_before(self, time_ns: int) -> None:
        """Drop readings that no longer held at this time."""
        while len(self._readings) > 1 and self._readings[1].time_ns <= time_ns:
            self._readings.popleft()
