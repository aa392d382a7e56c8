"""Pool of threads that detect in frames: detections in the frames' order, and counts of what was left out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from engines.ordered_threads import OrderedWork
from stream.messages import Detections

Outcome = tuple[Detections, Counter[str]]
"""A frame's detections, and what was left out of them by reason."""


class FrameWork(OrderedWork[Outcome]):
    """A pool of `workers` threads that turn frames into detections; `left_out` counts over all that was taken."""

    def __init__(self, workers: int, name: str) -> None:
        super().__init__(workers, name)
        self.left_out: Counter[str] = Counter()

    def give(self, work: Callable[[], Outcome]) -> None:
        """Queue `work`; waits while two items per worker are pending."""
        super().give(partial(_timed, work))

    def results(self, timeout_s: float) -> list[Detections]:
        """Return what is ready, in order; waits up to `timeout_s` for the first. Raises what the work raised."""
        ready = []
        for detections, left_out in self.take(timeout_s):
            self.left_out += left_out
            ready.append(detections)
        return ready


def _timed(work: Callable[[], Outcome]) -> Outcome:
    """What `work` returns, with how long it took in the frame's `detector_ms`."""
    begun_s = time.perf_counter()
    found, left_out = work()
    took_ms = 1e3 * (time.perf_counter() - begun_s)
    return replace(found, info=replace(found.info, detector_ms=took_ms)), left_out
