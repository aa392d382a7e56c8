"""A microscope's camera as a source of frames: our own polling loop over the core's sequence buffer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from acquisition.core import CameraThreadFaults, frame_queue, reason
from acquisition.microscope import NAN, Microscope
from acquisition.settings import MicroscopeSettings
from acquisition.simulated.sequence import FRAME_NUMBER_KEY, TIME_KEY
from acquisition.source import SourceInfo
from stream.errors import SourceError
from stream.messages import Frame, FrameInfo

IMAGE_NUMBER_KEY = "ImageNumber"
ELAPSED_KEY = "ElapsedTime-ms"
POLL_S = 0.0005
STALLED_EXPOSURES = 10


class MicroscopeStream:
    """Frames of a running camera, numbered from 0, with the focus and the pump as they were last read.

    A frame's `camera_frame` is the camera's own number where its adapter gives one, else Micro-Manager's. Gaps
    in it, also those of frames that the core discarded because nobody took them in time, are counted in
    `lost_in_camera`. `exposed_ns` is a lower bound of when the exposure of the last frame began, on the clock
    of `time.perf_counter_ns`.
    """

    def __init__(self, microscope: Microscope, settings: MicroscopeSettings, *, run_id: str) -> None:
        self._scope = microscope
        self._core = microscope.core
        self._settings = settings
        self._run_id = run_id
        self.info: SourceInfo = microscope.info()
        self._shape = (self.info.height, self.info.width)
        self._queue = frame_queue(self._core)
        self._simulated_time = microscope.simulated_time()
        self._faults = CameraThreadFaults()
        self._clock = _CameraClock()
        self._numbers = _CameraNumbers(settings.frame_number_key)
        self._began_ns = 0
        self._began_wall_s = 0.0
        self._period_ns = 0
        self._exposure_ms = NAN
        self._focus_um = self._flow_ul_s = NAN
        self._readings_due_s = 0.0
        self._last_frame_s = 0.0
        self._frame = 0
        self._running = self._stopped = self._paused = self._closed = False
        self.exposed_ns = 0

    @property
    def ended(self) -> bool:
        """Whether the camera was stopped and every frame has been read."""
        return self._stopped and self._core.getRemainingImageCount() == 0

    def start(self) -> None:
        """Start the camera. Raises `SourceError` if it cannot."""
        self._began_ns = time.perf_counter_ns()
        self._began_wall_s = time.time()
        self._start_camera()

    def _start_camera(self) -> None:
        self._scope.wait_for_focus(self._settings.stall_s)
        self._read_devices(time.monotonic())
        self._exposure_ms = self._scope.read_exposure()
        rate_hz = self.info.frame_rate_hz
        self._period_ns = round(1e9 / rate_hz) if rate_hz > 0 else round(1e6 * self._exposure_ms)
        if self._queue is not None:
            self._queue.patient = self._simulated_time
        self._clock.restart(time.perf_counter_ns(), self._began_ns)
        self._numbers.restart()
        try:
            self._core.startContinuousSequenceAcquisition(0)
        except Exception as error:
            raise SourceError(f"the camera {self._scope.camera} does not start: {reason(error)}") from error
        self._running = True
        self._last_frame_s = time.monotonic()

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame, or None. Raises `SourceError` if the camera has stopped or is silent."""
        deadline_s = time.monotonic() + timeout_s
        while self._core.getRemainingImageCount() == 0:
            now_s = time.monotonic()
            self._check_camera(now_s)
            if now_s >= deadline_s or not self._running:
                return None
            time.sleep(POLL_S)
        try:
            image, metadata = self._core.popNextImageAndMD()
        except (IndexError, RuntimeError) as error:
            if self._core.getRemainingImageCount() == 0:
                return None
            raise SourceError(f"the camera's buffer cannot be read: {reason(error)}") from error
        return self._frame_of(image, dict(metadata))

    def _check_camera(self, now_s: float) -> None:
        if not self._running or self._core.isSequenceRunning():
            silent_s = now_s - self._last_frame_s
            longest_s = self._settings.stall_s + STALLED_EXPOSURES * 1e-3 * self._exposure_ms
            if self._running and silent_s > longest_s:
                raise SourceError(
                    f"the camera {self._scope.camera} has delivered nothing for {silent_s:.0f} s; check its "
                    "trigger and cable, or raise microscope.stall_s"
                )
            return
        if self._core.getRemainingImageCount():
            return
        why = self._faults.last or self._scope.camera_error() or "its adapter does not say why"
        raise SourceError(
            f"the camera {self._scope.camera} stopped by itself after {self._frame} frames: {why}"
        )

    def _frame_of(self, image: np.ndarray[Any, Any], metadata: Mapping[str, Any]) -> Frame:
        arrived_ns = time.perf_counter_ns()
        now_s = self._last_frame_s = time.monotonic()
        if now_s >= self._readings_due_s:
            self._read_devices(now_s)
        if image.shape != self._shape or image.dtype.name != self.info.dtype:
            raise SourceError(
                f"frame {self._frame} of {self._scope.camera} is {image.shape} {image.dtype.name}, the first "
                f"was {self._shape} {self.info.dtype}; do not change the camera's format during a run"
            )
        camera_frame = self._numbers.take(metadata)
        camera_time_s = self._clock.take(metadata, arrived_ns, 1e6 * self._exposure_ms, self._period_ns)
        self.exposed_ns = self._clock.exposed_ns
        taken_ns = self._clock.arrived_ns
        own_time_s = 1e-9 * (taken_ns - self._began_ns)
        info = FrameInfo(
            run_id=self._run_id,
            frame=self._frame,
            camera_frame=camera_frame,
            time_s=camera_time_s if math.isfinite(camera_time_s) else own_time_s,
            monotonic_ns=taken_ns,
            wall_s=self._began_wall_s + own_time_s,
            camera_time_s=camera_time_s,
            focus_um=self._focus_um,
            focus_commanded_um=self._scope.focus_commanded_um,
            flow_ul_s=self._flow_ul_s,
            exposure_ms=self._exposure_ms,
            pixel_size_um=self.info.pixel_size_um,
        )
        self._frame += 1
        return Frame(info, image)

    def _read_devices(self, now_s: float) -> None:
        self._readings_due_s = now_s + 1 / self._settings.read_hz
        self._focus_um = self._scope.read_focus()
        self._flow_ul_s = self._scope.read_flow()

    def devices_changed(self) -> None:
        """Read focus, pump and exposure anew before the next frame is stamped."""
        self._readings_due_s = 0.0
        self._exposure_ms = self._scope.read_exposure()

    def stop(self) -> None:
        """Stop the camera; what it has taken can still be read. Idempotent."""
        self._stopped = True
        self._stop_camera()

    def _stop_camera(self) -> None:
        if not self._running:
            return
        self._running = False
        if self._queue is not None:
            self._queue.patient = False
        try:
            self._core.stopSequenceAcquisition()
        except Exception as error:
            raise SourceError(f"the camera {self._scope.camera} does not stop: {reason(error)}") from error

    def pause(self) -> None:
        """Stop the camera until `resume`."""
        self._paused = True
        self._stop_camera()

    def resume(self) -> None:
        """Start the camera again; what was still in its buffer is counted as lost in the camera."""
        if self._paused and not self._stopped:
            self._paused = False
            self._numbers.lost += self._core.getRemainingImageCount()
            self._start_camera()

    def counts(self) -> dict[str, int]:
        """`received` frames and `lost_in_camera`."""
        return {"received": self._frame, "lost_in_camera": self._numbers.lost}

    def gauges(self) -> dict[str, float]:
        """`buffer`: frames that wait in the camera's buffer."""
        return {"buffer": float(self._core.getRemainingImageCount())} if self._running else {}

    def close(self) -> None:
        """Stop the camera. Idempotent."""
        if not self._closed:
            self._closed = True
            self._stopped = True
            try:
                self._stop_camera()
            finally:
                self._faults.close()


class _CameraNumbers:
    """The camera's frame numbers, and what their gaps say was lost."""

    def __init__(self, key: str | None) -> None:
        self._keys = (key, IMAGE_NUMBER_KEY) if key else (FRAME_NUMBER_KEY, IMAGE_NUMBER_KEY)
        self._key: str | None = None
        self._next: int | None = None
        self._offset = 0
        self._highest = -1
        self.lost = 0

    def restart(self) -> None:
        """The camera begins to count anew; our numbers go on."""
        self._next = None
        self._offset = self._highest + 1

    def take(self, metadata: Mapping[str, Any]) -> int:
        """The number of a frame; what is missing before it is counted."""
        if self._key is None:
            self._key = next((key for key in self._keys if key in metadata), "")
        number = int(float(metadata[self._key])) if self._key else (self._next or 0)
        if self._next is None:
            # a camera may count from its power-on; without the first frames nothing can be said of losses
            first = 0 if self._key in {FRAME_NUMBER_KEY, IMAGE_NUMBER_KEY} else number
            self._base = first
            self._next = first
        if number > self._next:
            self.lost += number - self._next
        self._next = number + 1
        self._highest = self._offset + number - self._base
        return self._highest


class _CameraClock:
    """When frames were taken: on the camera's clock where it has one, else as they reached the core."""

    def __init__(self) -> None:
        self._started_ns = 0
        self._camera_first_s: float | None = None
        self._run_offset_s = 0.0
        self._elapsed_offset_ns = math.inf
        self._latest_offset_ns = math.inf
        self.arrived_ns = 0
        self.exposed_ns = 0

    def restart(self, now_ns: int, began_ns: int) -> None:
        """The camera is about to be started; `began_ns` is when the run began."""
        self._started_ns = now_ns
        self._camera_first_s = None
        self._run_offset_s = 1e-9 * (now_ns - began_ns)
        self._elapsed_offset_ns = self._latest_offset_ns = math.inf
        self._previous_s = -math.inf

    def take(
        self, metadata: Mapping[str, Any], popped_ns: int, exposure_ns: float, period_ns: float
    ) -> float:
        """Take a frame's times; returns the camera's, in s since the run began, or NaN.

        No frame was exposed before the camera was started, nor later than one exposure before it arrived: two
        bounds on the offset between the clocks, of which the lower one is used.
        """
        self.arrived_ns = self._arrival_ns(metadata, popped_ns)
        bound_ns = self.arrived_ns - exposure_ns - period_ns
        camera_s = _number(metadata.get(TIME_KEY))
        if not math.isfinite(camera_s):
            self.exposed_ns = round(bound_ns)
            return NAN
        if self._camera_first_s is None:
            self._camera_first_s = camera_s
        since_s = camera_s - self._camera_first_s
        self._latest_offset_ns = min(self._latest_offset_ns, self.arrived_ns - exposure_ns - 1e9 * since_s)
        offset_ns = min(self._started_ns, self._latest_offset_ns)
        self.exposed_ns = round(max(offset_ns + 1e9 * since_s, bound_ns))
        return self._run_offset_s + since_s

    def _arrival_ns(self, metadata: Mapping[str, Any], popped_ns: int) -> int:
        elapsed_ns = 1e6 * _number(metadata.get(ELAPSED_KEY))
        if not math.isfinite(elapsed_ns):
            return popped_ns
        self._elapsed_offset_ns = min(self._elapsed_offset_ns, popped_ns - elapsed_ns)
        return min(popped_ns, round(self._elapsed_offset_ns + elapsed_ns))


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return NAN
