"""A user's own detector as an `Engine`: called for each frame, its answers checked, its failures declared."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from engines.engine import DetectionError, EngineInfo, images_only, readable
from engines.file_hash import file_hash
from engines.ordered_threads import OrderedWork, default_workers
from engines.own.answers import NO_POSITION, OUTSIDE, AnswerError, table_of
from engines.own.loading import OwnDetector, load_detector
from engines.particle_limit import strongest_of
from engines.settings import DetectorSettings
from stream.errors import ConfigurationError
from stream.messages import Detections, Frame, FrameInfo, Predictions, Properties
from stream.own_code import where_it_failed

TOO_MANY, FAILED_FRAMES = "too_many", "failed_frames"
READER = "a detector of your own"
MOST_SAID = 5
"""Different failures that are told, each once. More of them tell nothing new; all are counted."""
LEFT_OUT = {
    NO_POSITION: "{n} of its positions in frame {frame} are not finite; such rows are left out and counted",
    OUTSIDE: "{n} of its positions in frame {frame} are outside of the image; such rows are left out and counted",
}


class Outcome(NamedTuple):
    """What became of a frame: its detections and what was left out of them, or why there are none."""

    info: FrameInfo
    detections: Detections | None
    left_out: Counter[str]
    why: str = ""


class OwnEngine:
    """Finds particles with a user's code.

    A frame in which that code raises, or returns what cannot be used, has no detections: it is counted and is among
    the `failed` ones. Where more than `detector.failed_frames` in succession fail, `results` raises.
    """

    def __init__(self, settings: DetectorSettings, pixel_size_um: float, say: Callable[[str], None]) -> None:
        """Raises `ConfigurationError` if the file cannot be used."""
        if settings.file is None:
            raise ConfigurationError("there is no detector of your own; give detector.file")
        self._settings, self._file = settings, settings.file
        self._pixel_size_um, self._say = pixel_size_um, say
        self._own = load_detector(self._file, settings.options)
        self._hash = file_hash(self._file)
        self._workers = _threads(settings, self._own)
        self._instances = [self._own.make() for _ in range(self._workers)]
        self._free: SimpleQueue[Any] = SimpleQueue()
        for instance in self._instances:
            self._free.put(instance)
        self._work: OrderedWork[Outcome] = OrderedWork(self._workers, "own")
        self._counts: Counter[str] = Counter()
        self._said: set[str] = set()
        self._failed: list[int] = []
        self._in_succession = 0
        self._over = ""
        self._depth = False
        self._names: tuple[str, ...] = ()
        self._naming = Lock()

    @property
    def info(self) -> EngineInfo:
        """What this engine is; `depth` is known once the user's code has returned one."""
        return EngineInfo(
            name=self._own.name,
            backend="python",
            device=str(getattr(self._instances[0], "device", "cpu")),
            model=str(self._file),
            hash=self._hash,
            depth=self._depth,
            details={"workers": self._workers, "options": dict(self._settings.options)},
        )

    @property
    def pending(self) -> int:
        """Frames submitted whose detections have not been returned yet, and the end, if it has not been told."""
        return len(self._work) + bool(self._over)

    def counts(self) -> dict[str, int]:
        """What was left out so far, by reason, and `failed_frames`."""
        return dict(self._counts)

    def warmup(self, height: int, width: int, dtype: np.dtype[Any], depth: int = 1) -> None:
        """Call each instance's `warmup(height, width, dtype)`, if it has one."""
        images_only(depth, READER)
        for instance in self._instances:
            try:
                if callable(warmup := getattr(instance, "warmup", None)):
                    warmup(height, width, dtype)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a user's code may raise anything, or call sys.exit
                raise ConfigurationError(
                    f"detector {self._file} failed in its warmup: {where_it_failed(error, self._file)}"
                ) from error

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        """Take a frame; waits while twice as many frames as there are workers are pending."""
        self._work.give(partial(self._find, readable(frame, (), READER)))

    def _find(self, frame: Frame) -> Outcome:
        begun_s = time.perf_counter()
        found, left_out, why = None, Counter[str](), ""
        info = frame.info
        instance = self._free.get()
        try:
            answer = instance.find(frame.image.copy(), frame.info)
            shape = (int(frame.image.shape[0]), int(frame.image.shape[1]))
            table, properties, left_out = table_of(
                answer, shape, self._pixel_size_um, self._settings.least_confidence
            )
            self._check_names(properties)
            kept, beyond = strongest_of(table, self._settings.max_particles)
            found = Detections(info, np.ascontiguousarray(table[:, kept]), properties.of(kept))
            left_out[TOO_MANY] += beyond
        except AnswerError as error:
            why = f"{self._own.place}: {error}"
        except BaseException as error:  # noqa: BLE001 - as above
            why = where_it_failed(error, self._file)
        finally:
            self._free.put(instance)
        info = replace(info, detector_ms=1e3 * (time.perf_counter() - begun_s))
        return Outcome(info, None if found is None else replace(found, info=info), +left_out, why)

    def _check_names(self, properties: Properties) -> None:
        """Raise `AnswerError` for other properties than those of the first frame that had any."""
        if not properties.names:
            return
        with self._naming:
            self._names = self._names or properties.names
        if properties.names != self._names:
            raise AnswerError(
                f"it returned the properties {', '.join(properties.names)}, and {', '.join(self._names)} before; "
                "return the same in each frame, NaN for what is not known"
            )

    def announce(self, call: Callable[[], None]) -> bool:
        """Have `call` called, from any thread, when there may be results. Returns True."""
        self._work.announce(call)
        return True

    def results(self, timeout_s: float) -> list[Detections]:
        """Return what is ready, in order; waits up to `timeout_s` for the first.

        Raises `DetectionError` once too many frames in succession have failed.
        """
        if self._over:
            why, self._over = self._over, ""
            raise DetectionError(why)
        ready = []
        for outcome in self._work.take(timeout_s):
            if outcome.detections is None:
                if self._fail(outcome):
                    break  # what comes after it is not used any more
                continue
            self._in_succession = 0
            self._depth = self._depth or bool(np.isfinite(outcome.detections.z_um).any())
            self._count(outcome)
            ready.append(outcome.detections)
        return ready

    def failed(self) -> list[int]:
        """The numbers of the frames that failed since the last call."""
        failed, self._failed = self._failed, []
        return failed

    def _fail(self, outcome: Outcome) -> bool:
        """Count a frame that failed; whether it is one too many."""
        frame = outcome.info.frame
        self._failed.append(frame)
        self._counts[FAILED_FRAMES] += 1
        self._in_succession += 1
        if len(self._said) < MOST_SAID and outcome.why not in self._said:
            self._said.add(outcome.why)
            self._say(f"the detector failed in frame {frame}, which is left out: {outcome.why}")
        if self._in_succession == self._settings.failed_frames + 1:
            self._over = (
                f"the detector failed in frame {frame}"
                + (f" and the {self._in_succession - 1} before it" if self._in_succession > 1 else "")
                + f" (detector.failed_frames is {self._settings.failed_frames}): {outcome.why}"
            )
        return bool(self._over)

    def _count(self, outcome: Outcome) -> None:
        for reason, n in outcome.left_out.items():
            if reason in LEFT_OUT and not self._counts[reason]:
                self._say(f"{self._own.place}: " + LEFT_OUT[reason].format(n=n, frame=outcome.info.frame))
        self._counts += outcome.left_out

    def close(self) -> None:
        """Wait for the frames in progress, stop the threads, and call each instance's `close`. Idempotent."""
        self._work.close()
        instances, self._instances = self._instances, self._instances[:1]
        if self._free.empty():
            return
        self._free = SimpleQueue()
        for instance in instances:
            try:
                if callable(close := getattr(instance, "close", None)):
                    close()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - as above; the results stand
                self._say(f"detector {self._file} failed in its close: {where_it_failed(error, self._file)}")


def _threads(settings: DetectorSettings, own: OwnDetector) -> int:
    """How many frames are searched at the same time: `detector.workers`, as far as the detector allows it."""
    if settings.workers is not None and settings.workers > own.threads:
        raise ConfigurationError(
            f"detector.workers is {settings.workers}, but {settings.file} takes {own.threads} frame"
            f"{'' if own.threads == 1 else 's'} at a time; set `threads = {settings.workers}` there, or none here"
        )
    return settings.workers or min(own.threads, default_workers())
