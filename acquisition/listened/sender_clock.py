"""Times of the frames of another program, s since the first one; they always rise."""

from __future__ import annotations

import math
from typing import Literal

LEAST_S = 1e-8  # s between two frames at least: faster than any camera, and it still divides a distance
LONGEST_S = 1e6  # s; a longer step between two frames is a wrong time
CLOCKS = {
    "sender": "times are those of the sender",
    "rate": "times are from the frame rate and the frames' numbers",
    "arrival": "the frames have no times: that of their arrival is used",
}


class SenderClock:
    """Uses, in this order: the frame rate, if the user gives one; the sender's times; the arrival.

    Where the sender's time is missing or does not rise, and after it began again, the time goes on by that of the
    arrival; `odd` counts the first two.
    """

    def __init__(self, frame_rate_hz: float | None = None) -> None:
        self._rate_hz = frame_rate_hz
        self.kind: Literal["sender", "rate", "arrival"] | None = None
        self.odd = 0
        self._last_s = 0.0
        self._arrived_ns = 0
        self._anchor_s = self._anchor_said = 0.0

    def take(self, said_s: float, number: int, arrived_ns: int, *, restarted: bool = False) -> float:
        """Time of a frame, s since the first: `said_s` by the sender (NaN: none), `number` ours, rising."""
        if self.kind is None:
            self.kind = "rate" if self._rate_hz else "sender" if math.isfinite(said_s) else "arrival"
            self._anchor(0.0, said_s, number, arrived_ns)
            return self._last_s
        arrival_s = self._last_s + max(LEAST_S, 1e-9 * (arrived_ns - self._arrived_ns))
        if restarted or self.kind == "arrival":
            self._anchor(arrival_s, said_s, number, arrived_ns)
            return self._last_s
        reading = number / self._rate_hz if self._rate_hz else said_s
        time_s = self._anchor_s + (reading - self._anchor_said)
        if LEAST_S <= time_s - self._last_s <= LONGEST_S:
            self._last_s, self._arrived_ns = time_s, arrived_ns
        else:
            self.odd += self.kind == "sender"
            self._anchor(arrival_s, said_s, number, arrived_ns)
        return self._last_s

    def _anchor(self, time_s: float, said_s: float, number: int, arrived_ns: int) -> None:
        """From here on the reading of the clock at this frame stands for `time_s`."""
        self._last_s = self._anchor_s = time_s
        self._anchor_said = number / self._rate_hz if self._rate_hz else said_s
        self._arrived_ns = arrived_ns
