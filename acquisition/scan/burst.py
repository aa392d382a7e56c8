"""Bursts: a fixed number of images from a camera that stands still before and after, with losses counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from acquisition.microscope.core import CameraThreadFaults, frame_queue, reason
from acquisition.microscope.frame_stamps import CameraClock, CameraNumbers
from acquisition.microscope.microscope import Microscope
from acquisition.settings import MicroscopeSettings
from stream.errors import SourceError
from stream.messages import ImageArray

POLL_S = 0.0005  # s between looks into the buffer of the core
LATE_EXPOSURES = 10  # exposures beyond `image_timeout_s` before an image counts as late
THREAD_ENDS_S = 0.1  # s that the thread of an adapter may run on after "stopped"; adds once to a scan


@dataclass(slots=True, eq=False)
class Burst:
    """Images (H, W) of one burst. `arrived_ns` is when each reached the core, on `time.perf_counter_ns`.

    `lost` counts images missing by the camera's numbers, and resets of these; `problem` says why images are
    missing, if any are.
    """

    images: list[ImageArray] = field(default_factory=list)
    arrived_ns: list[int] = field(default_factory=list)
    exposure_ms: float = float("nan")
    lost: int = 0
    problem: str = ""


class BurstCamera:
    """Takes bursts with the camera of a microscope, which stops by itself after the last image.

    No image is exposed before `take` is called, and none is overwritten: the camera stops if its buffer is full.
    """

    def __init__(self, microscope: Microscope, settings: MicroscopeSettings, image_timeout_s: float) -> None:
        """An image that takes longer than `image_timeout_s` plus ten exposures is late and ends its burst."""
        self.info = microscope.info()
        self._scope = microscope
        self._core = microscope.core
        self._image_timeout_s = image_timeout_s
        self._shape = (self.info.height, self.info.width)
        self._queue = frame_queue(self._core)
        self._simulated_time = microscope.simulated_time()
        self._numbers = CameraNumbers(settings.frame_number_key)
        self._clock = CameraClock()
        self._faults = CameraThreadFaults()
        self._stopped_s = -THREAD_ENDS_S

    def take(self, count: int, stopping: Callable[[], bool]) -> Burst:
        """Take `count` images, or fewer if some are late or lost, or if it is `stopping`.

        Raises `SourceError` if the camera fails or its image format has changed.
        """
        burst = Burst(exposure_ms=self._scope.read_exposure())
        self._start(count)
        try:
            self._collect(burst, count, stopping)
        finally:
            self._stop()
        return burst

    def _start(self, count: int) -> None:
        if self._queue is not None:
            self._queue.patient = self._simulated_time
        now_ns = time.perf_counter_ns()
        self._clock.restart(now_ns, now_ns)
        self._numbers.restart()
        self._faults.last = ""
        try:
            self._core.startSequenceAcquisition(count, 0, True)
        except Exception as error:
            raise SourceError(f"the camera {self._scope.camera} does not start: {reason(error)}") from error

    def _collect(self, burst: Burst, count: int, stopping: Callable[[], bool]) -> None:
        late_after_s = self._image_timeout_s + 1e-3 * LATE_EXPOSURES * burst.exposure_ms
        lost_before = self._numbers.lost + self._numbers.resets
        last_s = time.monotonic()
        while len(burst.images) < count:
            running = self._core.isSequenceRunning()
            if self._core.getRemainingImageCount():
                self._pop(burst)
                last_s = time.monotonic()
                continue
            if not running:
                why = self._faults.last or self._scope.camera_error()
                burst.problem = "the camera stopped" + (f": {why}" if why else "")
                break
            if time.monotonic() - last_s > late_after_s:
                burst.problem = f"no image came for {late_after_s:.3g} s"
                break
            if stopping():
                burst.problem = "it was stopped"
                break
            time.sleep(POLL_S)
        burst.lost = self._numbers.lost + self._numbers.resets - lost_before

    def _pop(self, burst: Burst) -> None:
        try:
            image, found = self._core.popNextImageAndMD()
        except (IndexError, RuntimeError) as error:
            raise SourceError(f"the camera's buffer cannot be read: {reason(error)}") from error
        popped_ns = time.perf_counter_ns()
        if image.shape != self._shape or image.dtype.name != self.info.dtype:
            raise SourceError(
                f"an image of {self._scope.camera} is {image.shape} {image.dtype.name}, the first were "
                f"{self._shape} {self.info.dtype}; do not change the image format during a scan"
            )
        metadata: dict[str, Any] = dict(found)
        burst.images.append(np.ascontiguousarray(image))
        burst.arrived_ns.append(self._clock.arrival_ns(metadata, popped_ns))
        self._numbers.take(metadata)

    def _stop(self) -> None:
        if self._queue is not None:
            self._queue.patient = False
        try:
            if self._core.isSequenceRunning():
                self._core.stopSequenceAcquisition()
        except Exception as error:
            raise SourceError(f"the camera {self._scope.camera} does not stop: {reason(error)}") from error
        finally:
            self._stopped_s = time.monotonic()

    def close(self) -> None:
        """Wait until the last burst has really ended; call this before the microscope is closed."""
        self._faults.close()
        if not self._core.isPyDevice(self._scope.camera):
            # an adapter's thread runs on for a moment after "stopped"; unloading it then has crashed Python
            time.sleep(max(0.0, self._stopped_s + THREAD_ENDS_S - time.monotonic()))
