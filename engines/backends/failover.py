"""Failover: when a back end fails during a run, ONNX Runtime takes over, or the run stops."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engines.backends.registry import BACK_ENDS, ONNXRUNTIME, open_back_end
from engines.engine import BackEndError, Engine, EngineInfo, WrongNumbersError
from engines.engine_around import EngineAround
from engines.image_structure import has_structure
from engines.network.engine import NetworkEngine
from engines.network.model import OnnxModel
from engines.network.noise_watch import NoiseWatch
from engines.settings import DetectorSettings
from stream.messages import Decisions, Detections, Frame, Predictions

log = logging.getLogger(__name__)

BLANK_RUN = 10
"""Frames in a row without a detection, but with structure in the last, after which ONNX Runtime checks that frame:
about a second of a live run. Doubled after each check, so that checks cost little."""
ALWAYS_KNOWN = [name for name in Detections.COLUMNS if name not in Detections.MORE]
"""The columns that a network gives numbers in, those of depth if it was trained for it."""
DEPTH = ("z_um", "sigma_z_um")
ANSWER_S = 60.0
"""Longest wait for that check."""


def open_guarded(
    settings: DetectorSettings,
    pixel_size_um: float,
    model: Path,
    say: Callable[[str], None],
    fit_may_join: bool = False,
) -> GuardedEngine:
    """The engine of the back end that the settings choose for a network, with failover.

    With `fit_may_join` it does not wait for a fit that has to be compiled first (`NetworkEngine.let_fit_join`).

    Raises `ConfigurationError` where no back end can run it, and for an unusable model.
    """
    opened = open_back_end(settings, pixel_size_um, model, BACK_ENDS, say)
    is_last = opened.back_end == ONNXRUNTIME

    def prepared(engine: Engine) -> Engine:
        if fit_may_join and isinstance(engine, NetworkEngine):
            engine.let_fit_join(say)
        return engine

    reference = None if is_last else lambda: prepared(ONNXRUNTIME.open(settings, pixel_size_um, model))
    return GuardedEngine(
        prepared(opened.engine),
        reference,
        falls_back=settings.on_failure == "fall_back",
        skipped=opened.skipped,
        noise=NoiseWatch.of(OnnxModel(model).card, say),
        say=say,
    )


class GuardedEngine(EngineAround):
    """An `Engine` around that of a back end, with another one to replace it.

    `reference` opens the engine that the back end is compared with and that replaces it when it fails: it gets
    the frames that have no result yet. Without a reference, or if not `falls_back`, the failure is raised.
    Frames without a detection although they show structure are counted as `blank`. After ten such frames in a
    row, then twice as many and so on, the reference checks the last one; if it finds particles there, the back
    end has failed. `say` reports a failure; `skipped` are the back ends that were not chosen, and why; `noise`
    watches the noise of the frames.
    """

    def __init__(
        self,
        engine: Engine,
        reference: Callable[[], Engine] | None,
        *,
        falls_back: bool = True,
        skipped: dict[str, str] | None = None,
        noise: NoiseWatch | None = None,
        say: Callable[[str], None] = log.warning,
    ) -> None:
        super().__init__(engine)
        self._reference = reference
        self._falls_back = falls_back
        self._noise = noise
        known = [name for name in ALWAYS_KNOWN if engine.info.depth or name not in DEPTH]
        self._known = [Detections.COLUMNS.index(name) for name in known]
        self._say = say
        self._skipped = dict(skipped or {})
        self._failure = ""
        self._waiting: deque[tuple[Frame, Predictions | None]] = deque()
        self._on_results: Callable[[], None] | None = None
        self._counted: Counter[str] = Counter()
        self._format: tuple[int, int, np.dtype[Any], int] | None = None
        self._blank, self._counted_blank, self._look_at = 0, 0, BLANK_RUN

    @property
    def info(self) -> EngineInfo:
        """The engine in use; `details` have the back ends that were skipped, and the failure of a replaced one."""
        info = self._engine.info
        details = info.details | {"skipped": dict(self._skipped)}
        if self._failure:
            details["failed"] = self._failure
        return EngineInfo(info.name, info.backend, info.device, info.model, info.hash, info.depth, details)

    @property
    def pending(self) -> int:
        """Frames submitted whose detections have not been returned yet."""
        return len(self._waiting)

    def warmup(self, height: int, width: int, dtype: np.dtype[Any], depth: int = 1) -> None:
        """Compile and allocate; a back end that fails here is replaced as during a run."""
        self._format = height, width, dtype, depth
        try:
            self._engine.warmup(height, width, dtype, depth)
        except BackEndError as error:
            self._replace(error)

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        """Take a frame; waits while as many as the engine can hold are being worked on."""
        self._waiting.append((frame, predicted))
        try:
            self._engine.submit(frame, predicted)
        except BackEndError as error:
            self._replace(error)
        except BaseException:  # an interruption too: the frame was not taken
            self._waiting.pop()
            raise
        if self._noise is not None:
            self._noise.look(frame)

    def announce(self, call: Callable[[], None]) -> bool:
        """Have `call` called when there may be results; False where the engine cannot say."""
        self._on_results = call
        return super().announce(call)

    def results(self, timeout_s: float) -> list[Detections]:
        """Return the detections that are ready, in order, waiting for at most `timeout_s`.

        Raises `BackEndError` when the back end failed and nothing replaces it.
        """
        try:
            ready = self._engine.results(timeout_s)
            for (frame, _), detections in zip(self._waiting, ready, strict=False):
                self._look(frame, detections)
        except BackEndError as error:
            self._replace(error)
            return []
        for _ in ready:
            self._waiting.popleft()
        return [_of_replacement(detections) for detections in ready] if self._failure else ready

    def _look(self, frame: Frame, detections: Detections) -> None:
        """Raise `WrongNumbersError` for wrong results that the back end's own checks cannot see."""
        if len(detections):
            if not np.isfinite(detections.table[self._known]).all():
                raise WrongNumbersError(
                    f"{self._name} gave positions that are not finite numbers in frame {frame.info.frame}"
                )
            self._blank, self._counted_blank, self._look_at = 0, 0, BLANK_RUN
            return
        self._blank += 1
        if self._blank < self._look_at:
            return
        self._look_at *= 2
        if not has_structure(frame.image):
            return
        self._counted["blank"] += self._blank - self._counted_blank
        self._counted_blank = self._blank
        if self._reference is not None and self._finds_any(self._reference, frame):
            raise WrongNumbersError(
                f"{self._name} detected nothing in {self._blank} frames up to frame {frame.info.frame}, in which "
                "onnxruntime finds particles"
            )

    @staticmethod
    def _finds_any(reference: Callable[[], Engine], frame: Frame) -> bool:
        found: list[Detections] = []
        with closing(reference()) as engine:
            engine.submit(frame)
            while engine.pending:
                found += engine.results(ANSWER_S)
        return any(len(detections) for detections in found)

    @property
    def _name(self) -> str:
        info = self._engine.info
        return f"{info.backend} ({info.device})"

    def _replace(self, error: BackEndError) -> None:
        """Continue with the reference, from the first frame without a result; raises `error` if not allowed."""
        if self._reference is None or not self._falls_back:
            raise error
        name = self._name
        self._counted += Counter(self._engine.counts())
        self._counted["back_end_failures"] += 1
        try:
            self._engine.close()
        except BackEndError as late:
            self._say(f"{name} could not be closed: {late}")
        self._engine, self._reference = self._reference(), None
        self._blank, self._counted_blank, self._look_at = 0, 0, BLANK_RUN
        self._failure = str(error)
        self._say(f"{self._failure}; {self._name} continues in its place")
        if self._on_results is not None:
            super().announce(self._on_results)
        if self._format is not None:
            self._engine.warmup(*self._format)
        for frame, predicted in self._waiting:
            self._engine.submit(frame, predicted)

    def counts(self) -> dict[str, int]:
        """Totals of all engines so far, with `blank` frames and `back_end_failures`."""
        return dict(self._counted + Counter(self._engine.counts()))

    def close(self) -> None:
        """Close the engine. Idempotent."""
        super().close()
        self._waiting.clear()


def _of_replacement(found: Detections) -> Detections:
    """The detections, which say that another back end than the first has made them."""
    made = replace(found.info.decisions or Decisions(), replaced=True)
    return replace(found, info=replace(found.info, decisions=made))
