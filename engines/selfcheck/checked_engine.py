"""An engine around another one that compares some of its frames with the calibration, in a thread of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.engine import Engine, EngineInfo, working_dtype
from engines.engine_around import EngineAround
from engines.selfcheck.gauges import ALARMS, DETAIL
from engines.selfcheck.inspector import Inspector
from stream.messages import Detections, Frame, Predictions

log = logging.getLogger(__name__)

PERIOD_S = 0.2
"""Time between looks: five a second cost a twentieth of a core, and a change is sure after some seconds."""

Seen = tuple[list[str], dict[str, object]]
"""What a look has to say, and all that is known since."""


class CheckedEngine(EngineAround):
    """An `Engine` around another one, which does the work; `say` gets each change of the optics once.

    A look at a frame never delays its result: the image is copied (1 ms for 3.7 million pixels) and judged beside
    the run; while it is judged, no other is taken. `make` prepares the checks, in `warmup` as far as `is_ready`
    says that nothing has to be compiled for them, else before a later look; None where there is nothing to compare
    with. The thread is waited for, by `close` and by the end of the interpreter: one that still computed then, or
    compiled, would use what is gone.
    """

    def __init__(
        self,
        engine: Engine,
        make: Callable[[], Inspector | None],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        is_ready: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(engine)
        self._make = make
        self._say = say
        self._clock = clock
        self._is_ready = is_ready
        self._due_s = -np.inf
        self._frames: dict[int, npt.NDArray[Any]] = {}
        self._facts: dict[str, object] = {}
        self._alarms = 0
        self._inspector: Inspector | None = None
        self._is_over = False
        self._thread = ThreadPoolExecutor(1, "self-check")
        self._look: Future[Seen | None] | None = None

    @property
    def info(self) -> EngineInfo:
        """What the engine is; `details` have what the checks found so far."""
        info = self._engine.info
        return replace(info, details=info.details | {DETAIL: self._facts, ALARMS: self._alarms})

    def warmup(self, height: int, width: int, dtype: np.dtype[Any], depth: int = 1) -> None:
        """Compile and allocate everything for such images; the checks too, so that they do not take time later."""
        super().warmup(height, width, dtype, depth)
        try:
            self._prepare()
            if self._inspector is not None:
                self._inspector.rehearse((height, width), working_dtype(dtype))
        except Exception as error:  # a run does not end because its check does; the run says so once
            log.exception("the self-check cannot be prepared")
            self._give_up(error)

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        """Take a frame; waits while the engine processes as many as it can hold."""
        self._engine.submit(frame, predicted)
        now_s = self._clock()
        is_due = now_s >= self._due_s and self._look is None and not self._is_over
        if is_due and not self._frames and frame.image.ndim == 2:
            self._due_s = now_s + PERIOD_S
            self._frames[frame.info.frame] = frame.image.copy()

    def results(self, timeout_s: float) -> list[Detections]:
        """Return the detections that are ready, in order, waiting for at most `timeout_s`."""
        ready = self._engine.results(timeout_s)
        for detections in ready if self._frames else ():
            image = self._frames.pop(detections.info.frame, None)
            if image is not None:
                self._look = self._thread.submit(self._judge, image, detections, self._clock())
            elif min(self._frames, default=detections.info.frame) < detections.info.frame:
                self._frames.clear()  # its frame was not answered
        if self._look is not None and self._look.done():
            self._take(self._look)
        return ready

    def _prepare(self) -> None:
        if self._inspector is None and not self._is_over and self._is_ready():
            self._inspector = self._make()
            self._is_over = self._inspector is None

    def _judge(self, image: npt.NDArray[Any], detections: Detections, now_s: float) -> Seen | None:
        """In the thread: what is to be said after a look at one image; None as long as nothing is prepared."""
        self._prepare()
        if self._inspector is None:
            return None
        texts = self._inspector.look(image, detections, now_s)
        return texts, self._inspector.facts()

    def _take(self, look: Future[Seen | None]) -> None:
        """Say what a look that is over has found."""
        self._look = None
        try:
            seen = look.result()
        except Exception as error:  # as above
            log.exception("the self-check ended")
            self._give_up(error)
            return
        if seen is not None:
            texts, self._facts = seen
            self._alarms += len(texts)
            for text in texts:
                self._say(text)

    def _give_up(self, error: Exception) -> None:
        self._is_over = True
        self._say(
            f"the optics are not checked any more ({type(error).__name__}: {error}); the run goes on without"
        )

    def close(self) -> None:
        """Wait for the last look, which takes some ms, and close the engine. Idempotent."""
        self._thread.shutdown(wait=True)
        if self._look is not None:
            self._take(self._look)
        super().close()
