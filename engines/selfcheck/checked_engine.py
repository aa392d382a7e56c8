"""An engine around another one that compares some of its frames with the calibration, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.engine import Engine, EngineInfo
from engines.engine_around import EngineAround
from engines.selfcheck.gauges import DETAIL
from engines.selfcheck.inspector import Inspector
from stream.messages import Detections, Frame, Predictions

log = logging.getLogger(__name__)

PERIOD_S = 0.2
"""Time between looks: five a second cost a twentieth of a core, and a change is sure after some seconds."""


class CheckedEngine(EngineAround):
    """An `Engine` around another one, which does the work; `say` gets each change of the optics once.

    A look at a frame never delays its result: the image is copied (1 ms for 3.7 million pixels) and judged beside
    the run; while it is judged, no other is taken. `make` prepares the checks, in their thread; None where there is
    nothing to compare with.
    """

    def __init__(
        self,
        engine: Engine,
        make: Callable[[], Inspector | None],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(engine)
        self._make = make
        self._say = say
        self._clock = clock
        self._due_s = -np.inf
        self._frames: dict[int, npt.NDArray[Any]] = {}
        self._facts: dict[str, object] = {}
        self._texts: list[str] = []
        self._job: tuple[npt.NDArray[Any], Detections, float] | None = None
        self._wake = threading.Condition()
        self._ends = False
        self._thread: threading.Thread | None = None

    @property
    def info(self) -> EngineInfo:
        """What the engine is; `details` have what the checks found so far."""
        info = self._engine.info
        return replace(info, details=info.details | {DETAIL: self._facts})

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        """Take a frame; waits while the engine processes as many as it can hold."""
        self._engine.submit(frame, predicted)
        now_s = self._clock()
        if now_s >= self._due_s and not self._frames and frame.image.ndim == 2:
            self._due_s = now_s + PERIOD_S
            self._frames[frame.info.frame] = frame.image.copy()

    def results(self, timeout_s: float) -> list[Detections]:
        """Return the detections that are ready, in order, waiting for at most `timeout_s`."""
        ready = self._engine.results(timeout_s)
        for detections in ready if self._frames else ():
            image = self._frames.pop(detections.info.frame, None)
            if image is not None:
                self._give(image, detections)
            elif min(self._frames, default=detections.info.frame) < detections.info.frame:
                self._frames.clear()  # its frame was not answered
        while self._texts:
            self._say(self._texts.pop(0))
        return ready

    def _give(self, image: npt.NDArray[Any], detections: Detections) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="self-check", daemon=True)
            self._thread.start()
        with self._wake:
            if self._job is None:
                self._job = image, detections, self._clock()
                self._wake.notify()

    def _work(self) -> None:
        try:
            inspector = self._make()
            while inspector is not None:
                with self._wake:
                    while self._job is None and not self._ends:
                        self._wake.wait()
                    if self._ends:
                        return
                    job = self._job
                if job is not None:
                    texts = inspector.look(*job)
                    self._facts = inspector.facts()
                    self._texts += texts
                with self._wake:
                    self._job = None
        except Exception as error:  # a run does not end because its check does; the run says so once
            log.exception("the self-check ended")
            self._texts.append(
                f"the optics are not checked any more ({type(error).__name__}: {error}); the run goes on without"
            )

    def close(self) -> None:
        """Close the engine. Idempotent."""
        with self._wake:
            self._ends = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(5.0)
        super().close()
