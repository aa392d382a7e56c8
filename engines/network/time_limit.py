"""Ends what takes too long in ONNX Runtime: no thread can be stopped, but a run asks its options at every node."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TICK_S = 0.25


class TimeLimits:
    """Calls `stop` of whatever is still under way at its time; one thread watches over all that is limited."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._limits: dict[int, tuple[float, Callable[[], None]]] = {}
        self._numbers = itertools.count()
        self._watching = False

    @contextmanager
    def limited(self, seconds: float, stop: Callable[[], None]) -> Iterator[None]:
        """Have `stop` called if the block is not left within `seconds`."""
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
