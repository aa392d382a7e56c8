"""Times of the frames of a watched folder, s since the first one; they always rise."""

from __future__ import annotations

import math


class FileClock:
    """Uses the frame rate; where the files say the time of each image, and the user gives no rate, these times.

    `rate_hz` is used for steps that the files do not say.
    """

    def __init__(self, rate_hz: float, *, follows_files: bool) -> None:
        self._rate_hz = rate_hz
        self._follows = follows_files
        self._number: int | None = None
        self._said_s = math.nan
        self._time_s = 0.0

    def take(self, number: int, said_s: float) -> float:
        """Time of frame `number` (rising), which its file says is `said_s` (NaN: nothing)."""
        if self._number is not None:
            step_s = said_s - self._said_s
            if not (self._follows and 0 < step_s < math.inf):
                step_s = (number - self._number) / self._rate_hz
            self._time_s += step_s
        self._number, self._said_s = number, said_s
        return self._time_s
