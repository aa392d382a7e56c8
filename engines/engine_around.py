"""Engines around another engine, which does the work: what they pass on to it unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engines.engine import Engine, EngineInfo, announces, failed_frames
from engines.fit_budget import FrameCost, Reducible
from stream.messages import Detections, Frame, Predictions


class EngineAround:
    """An `Engine` that passes everything on to another one; a subclass changes what it adds to that."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def info(self) -> EngineInfo:
        """What the engine is."""
        return self._engine.info

    @property
    def pending(self) -> int:
        """Frames submitted whose detections have not been returned yet."""
        return self._engine.pending

    def warmup(self, height: int, width: int, dtype: np.dtype[Any], depth: int = 1) -> None:
        """Compile and allocate everything for such images."""
        self._engine.warmup(height, width, dtype, depth)

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        """Take a frame; waits while the engine processes as many as it can hold."""
        self._engine.submit(frame, predicted)

    def results(self, timeout_s: float) -> list[Detections]:
        """Return the detections that are ready, in order, waiting for at most `timeout_s`."""
        return self._engine.results(timeout_s)

    def announce(self, call: Callable[[], None]) -> bool:
        """Have `call` called when there may be results; False where the engine cannot say."""
        return announces(self._engine, call)

    def failed(self) -> list[int]:
        """The numbers of the frames in which the engine failed since the last call."""
        return failed_frames(self._engine)

    def allow_fit(self, share: float, ms: float) -> None:
        """Set how much of the fit may be done in the next frames, where the engine has one that can be reduced."""
        if isinstance(self._engine, Reducible):
            self._engine.allow_fit(share, ms)

    def costs(self) -> list[FrameCost]:
        """What the frames cost that were finished since the last call; none where the engine does not know."""
        return self._engine.costs() if isinstance(self._engine, Reducible) else []

    def counts(self) -> dict[str, int]:
        """Totals of the engine since the start."""
        return self._engine.counts()

    def close(self) -> None:
        """Close the engine. Idempotent."""
        self._engine.close()
