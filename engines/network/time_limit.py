"""Time limits for ONNX Runtime, which checks at every node whether it should stop."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TICK_S = 0.25
"""s between looks at the clock, small beside limits of 20 s and more."""


class TimeLimits:
    """Calls `stop` for each block that exceeds its time; one thread watches all of them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._limits: dict[int, tuple[float, Callable[[], None]]] = {}
        self._numbers = itertools.count()
        self._watching = False

    @contextmanager
    def limited(self, seconds: float, stop: Callable[[], None]) -> Iterator[None]:
        """Call `stop` if the block takes longer than `seconds`."""
        number = next(self._numbers)
        with self._changed:
            self._limits[number] = (time.monotonic() + seconds, stop)
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="time-limits", daemon=True).start()
            elif len(self._limits) == 1:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._limits.pop(number, None)

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._limits:
                    self._changed.wait()
                now_s = time.monotonic()
                late = [number for number, (until_s, _) in self._limits.items() if now_s >= until_s]
                stops = [self._limits.pop(number)[1] for number in late]
            for stop in stops:
                stop()
            time.sleep(TICK_S)


LIMITS = TimeLimits()
