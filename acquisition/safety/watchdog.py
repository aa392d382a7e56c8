"""What keeps the watchdog quiet: a result of a frame that was exposed within the limit, however old its message."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MARGIN_S = 1.0  # exposures are remembered for so much longer than the limit


class Watchdog:
    """Armed by the first result; expires once when the newest exposure that a result shows is older than `limit_s`.

    After that it stays quiet until a result is live again, that is, of a frame exposed within the limit.
    `taken` tells it when each frame was exposed. `expired` and `overdue` may be asked from another thread.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._exposed_s: OrderedDict[int, float] = OrderedDict()
        self._newest = -1
        self._shown_s: float | None = None
        self._acted = False

    def taken(self, frame: int, age_s: float) -> None:
        """A frame has come from the camera, exposed `age_s` ago."""
        now_s = self._clock()
        self._exposed_s[frame] = now_s - max(age_s, 0.0)
        self._newest = max(self._newest, frame)
        oldest_s = now_s - self.limit_s - MARGIN_S
        while self._exposed_s and next(iter(self._exposed_s.values())) < oldest_s:
            self._exposed_s.popitem(last=False)

    def age_s(self, frame: int) -> float | None:
        """How long ago a frame was exposed, s; infinite beyond the memory, None where no such frame was taken."""
        if frame < 0 or frame > self._newest:
            return None
        exposed_s = self._exposed_s.get(frame)
        return float("inf") if exposed_s is None else self._clock() - exposed_s

    def is_stale(self, frame: int) -> bool:
        """Whether what was decided on this frame is no longer a live result."""
        age_s = self.age_s(frame)
        return age_s is not None and age_s > self.limit_s

    def heard(self, frame: int) -> bool:
        """The result of this frame has been looked at; whether that ends a silence on which was acted.

        One that names no frame, or none that was taken, arms the watchdog and does not keep it quiet.
        """
        now_s, age_s = self._clock(), self.age_s(frame)
        if age_s is not None and age_s <= self.limit_s:
            was_acted, self._acted = self._acted, False
            self._shown_s = max(now_s - age_s, self._shown_s if self._shown_s is not None else -float("inf"))
            return was_acted
        if self._shown_s is None and not self._acted:
            self._shown_s = now_s if age_s is None else now_s - age_s
        return False

    def disarm(self) -> None:
        """The safe state was entered for another reason."""
        self._shown_s = None
        self._acted = False

    def overdue(self, by_s: float) -> bool:
        """Whether it should have acted so long ago: nobody has asked `expired` since."""
        shown_s = self._shown_s
        return shown_s is not None and self._clock() - shown_s > self.limit_s + by_s

    def expired(self) -> bool:
        """Whether it is time to act; True once."""
        if not self.overdue(0.0):
            return False
        self._shown_s = None
        self._acted = True
        return True
