"""An engine whose fit is kept within what the camera leaves, frame by frame."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from engines.engine import Engine, EngineInfo, announces
from engines.fit_budget import Reducible
from engines.governor import Change, Governor
from stream.messages import Detections, Frame

LONGEST_AGE_MS = 3.6e6
"""Ages beyond an hour are those of another computer's clock, and not known."""


class GovernedEngine:
    """An `Engine` around another one, whose fit a `Governor` limits for each frame.

    `report` gets each change of the governor's state. For live frames only: recordings have no camera to keep up
    with.
    """

    def __init__(self, engine: Engine, governor: Governor, report: Callable[[Change], None]) -> None:
        self._engine = engine
        self._governor = governor
        self._report = report

    @property
    def info(self) -> EngineInfo:
        """What the engine is."""
        return self._engine.info

    @property
    def pending(self) -> int:
        """Frames submitted whose detections have not been returned yet."""
        return self._engine.pending

    @property
    def state(self) -> str:
        """The governor's state in words."""
        return self._governor.state

    def warmup(self, height: int, width: int, dtype: np.dtype[Any]) -> None:
        """Compile and allocate everything for such images."""
        self._engine.warmup(height, width, dtype)

    def submit(self, frame: Frame) -> None:
        """Take a frame; waits while the engine processes as many as it can hold."""
        info = frame.info
        age_ms = 1e-6 * (time.perf_counter_ns() - info.monotonic_ns)
        budget_ms = self._governor.arrived(
            info.frame, info.time_s, age_ms if 0.0 <= age_ms < LONGEST_AGE_MS else 0.0
        )
        if isinstance(self._engine, Reducible):
            self._engine.allow_fit(1.0, budget_ms)
        self._engine.submit(frame)

    def results(self, timeout_s: float) -> list[Detections]:
        """Return the detections that are ready, in order, waiting for at most `timeout_s`."""
        ready = self._engine.results(timeout_s)
        if ready and isinstance(self._engine, Reducible):
            change = self._governor.finished(self._engine.costs())
            if change is not None:
                self._report(change)
        return ready

    def announce(self, call: Callable[[], None]) -> bool:
        """Have `call` called when there may be results; False where the engine cannot say."""
        return announces(self._engine, call)

    def counts(self) -> dict[str, int]:
        """Totals of the engine since the start."""
        return self._engine.counts()

    def close(self) -> None:
        """Close the engine. Idempotent."""
        self._engine.close()
