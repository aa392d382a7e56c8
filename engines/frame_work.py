"""Frames worked on by threads: detections in the frames' order, and what was left out of them."""

from __future__ import annotations

from collections import Counter

from engines.ordered import OrderedWork
from stream.messages import Detections

Outcome = tuple[Detections, Counter[str]]
"""A frame's detections, and what was left out of them by reason."""


class FrameWork(OrderedWork[Outcome]):
    """A pool of `workers` threads that turn frames into detections; `left_out` counts over all that was taken."""

    def __init__(self, workers: int, name: str) -> None:
        super().__init__(workers, name)
        self.left_out: Counter[str] = Counter()

    def results(self, timeout_s: float) -> list[Detections]:
        """Return what is ready, in order; waits up to `timeout_s` for the first. Raises what the work raised."""
        ready = []
        for detections, left_out in self.take(timeout_s):
            self.left_out += left_out
            ready.append(detections)
        return ready
