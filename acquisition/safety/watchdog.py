"""The watchdog: expires when no live result has shown a recently exposed frame."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MARGIN_S = (
    1.0  # s beyond the limit for which exposure times are kept, so that a stale frame is known as stale
)


class Watchdog:
    """Armed by the first live result; expires once the newest frame of a result was exposed over `limit_s` ago.

    What counts is the exposure of the frame, not the arrival of the message. After expiry it stays quiet until
    results are live again, that is, of a frame exposed within the limit. `taken` reports when each frame was
    exposed. `expired` and `overdue` may be called from another thread.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._exposed_s: OrderedDict[int, float] = OrderedDict()
        self._newest = -1
        self._shown_s: float | None = None
        self._acted = False
        self._heard: tuple[float, float] | None = None

    def taken(self, frame: int, age_s: float) -> None:
        """Note a frame from the camera that was exposed `age_s` ago."""
        now_s = self._clock()
        self._exposed_s[frame] = now_s - max(age_s, 0.0)
        self._newest = max(self._newest, frame)
        oldest_s = now_s - self.limit_s - MARGIN_S
        while self._exposed_s and next(iter(self._exposed_s.values())) < oldest_s:
            self._exposed_s.popitem(last=False)

    def age_s(self, frame: int) -> float | None:
        """Time since the exposure of a frame, s; infinite if no longer known, None if there was no such frame."""
        if frame < 0 or frame > self._newest:
            return None
        exposed_s = self._exposed_s.get(frame)
        return float("inf") if exposed_s is None else self._clock() - exposed_s

    def is_stale(self, frame: int) -> bool:
        """Whether a decision on this frame is no longer a live result."""
        age_s = self.age_s(frame)
        return age_s is not None and age_s > self.limit_s

    def heard(self, frame: int) -> bool:
        """Note a live result of this frame; returns whether it ends a silence after which the watchdog has acted.

        A result without a frame, or of one that was not taken, arms the watchdog but does not keep it quiet.
        """
        now_s, age_s = self._clock(), self.age_s(frame)
        if age_s is not None:
            self._heard = now_s, age_s
        if age_s is not None and age_s <= self.limit_s:
            was_acted, self._acted = self._acted, False
            self._shown_s = max(now_s - age_s, self._shown_s if self._shown_s is not None else -float("inf"))
            return was_acted
        if self._shown_s is None and not self._acted:
            self._shown_s = now_s if age_s is None else now_s - age_s
        return False

    def disarm(self) -> None:
        """Reset: the safe state was entered for another reason."""
        self._shown_s = None
        self._acted = False

    def overdue(self, by_s: float) -> bool:
        """Whether it should have acted at least `by_s` ago: `expired` has not been called since."""
        shown_s = self._shown_s
        return shown_s is not None and self._clock() - shown_s > self.limit_s + by_s

    def late_results(self) -> str:
        """How old results are, as the end of a sentence, if some came in the last half of the limit; else ""."""
        if self._heard is None or self._clock() - self._heard[0] > 0.5 * self.limit_s:
            return ""
        known_s = self.limit_s + MARGIN_S
        age = f"{self._heard[1]:.1f}" if self._heard[1] <= known_s else f"more than {known_s:g}"
        return f"; results still come, but {age} s after the exposure of their frames"

    def expired(self) -> bool:
        """Whether it is time to act; True once."""
        if not self.overdue(0.0):
            return False
        self._shown_s = None
        self._acted = True
        return True
