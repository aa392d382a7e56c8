"""An engine whose fit is kept within what the camera leaves, frame by frame."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from engines.engine import Engine
from engines.engine_around import EngineAround
from engines.governor import Change, Governor
from stream.messages import Detections, Frame, Predictions


class GovernedEngine(EngineAround):
    """An `Engine` around another one, whose fit a `Governor` limits for each frame.

    `report` gets each change of the governor's state. For live frames only: recordings have no camera to keep up
    with.
    """

    def __init__(self, engine: Engine, governor: Governor, report: Callable[[Change], None]) -> None:
        super().__init__(engine)
        self._governor = governor
        self._report = report

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        """Take a frame; waits while the engine processes as many as it can hold."""
        info = frame.info
        age_ms = info.age_ms_at(time.perf_counter_ns())
        budget_ms = self._governor.arrived(info.frame, info.time_s, age_ms if math.isfinite(age_ms) else 0.0)
        self.allow_fit(1.0, budget_ms)
        super().submit(frame, predicted)

    def results(self, timeout_s: float) -> list[Detections]:
        """Return the detections that are ready, in order, waiting for at most `timeout_s`."""
        ready = super().results(timeout_s)
        change = self._governor.finished(self.costs()) if ready else None
        if change is not None:
            self._report(change)
        return ready
