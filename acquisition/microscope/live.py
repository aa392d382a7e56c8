"""The camera of a microscope as a source of frames: a polling loop over the sequence buffer of the core."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from acquisition.microscope.core import CameraThreadFaults, frame_queue, reason
from acquisition.microscope.frame_stamps import CameraClock, CameraNumbers
from acquisition.microscope.microscope import Microscope
from acquisition.microscope.readings import Reading, Readings
from acquisition.microscope.watched_state import changes
from acquisition.settings import MicroscopeSettings
from acquisition.source import SourceInfo
from stream.errors import SourceError
from stream.messages import Frame, FrameInfo

POLL_S = 0.0005  # s between looks into the core's buffer: adds as much latency, costs 1 % of a core
CHECK_S = 0.02  # s between questions whether the camera still runs; a stop by itself is seen that much later
STALLED_EXPOSURES = 10  # without a frame beyond `stall_s`: a long exposure must not look like a dead camera
STATE_S = (
    0.5  # s between readings of pixel size, exposure, bit depth and shutter, which only a person changes
)

log = logging.getLogger(__name__)


class MicroscopeStream:
    """Frames of a running camera, numbered from 0, with focus, flow, exposure and pixel size at their exposure.

    Pixel size, exposure, bit depth and shutter are read twice a second and after each command; changes go to
    `report`. A change of the size or type of the images ends the stream with an error.

    `camera_frame` is the camera's own number if its adapter provides one, else Micro-Manager's. Gaps in it are
    counted in `lost_in_camera`, also those of frames that the core discarded because they were not read in time.
    `exposed_ns` is a lower bound of the start of the last frame's exposure, on the clock of `time.perf_counter_ns`:
    the frame may have waited in the camera's buffer since, and later changes do not show in it.
    """

    def __init__(
        self,
        microscope: Microscope,
        settings: MicroscopeSettings,
        *,
        run_id: str,
        report: Callable[[str], None] = log.warning,
        first_number: int | None = None,
    ) -> None:
        """`first_number`: what `frame_number_key` says of the first frame after each start of the camera."""
        self._scope = microscope
        self._core = microscope.core
        self._settings = settings
        self._run_id = run_id
        self.info: SourceInfo = microscope.info()
        self._shape = (self.info.height, self.info.width)
        self._queue = frame_queue(self._core)
        self._simulated_time = microscope.simulated_time()
        self._faults = CameraThreadFaults()
        self._clock = CameraClock(keeps_time=not self._simulated_time)
        self._numbers = CameraNumbers(settings.frame_number_key, first_number)
        self._readings = Readings()
        self._kept: deque[tuple[Frame, int]] = deque()
        self._began_ns = 0
        self._began_wall_s = 0.0
        self._period_ns = self._arrived_ns = 0
        self._report = report
        self._state = microscope.read_state()
        self._exposure_ms = self._state.exposure_ms
        self._pixel_size_um = self.info.pixel_size_um
        self._state_due_s = 0.0
        self._readings_due_s = 0.0
        self._check_due_s = 0.0
        self._last_frame_s = 0.0
        self._frame = self._left = 0
        self._images: int | None = None
        self._last_image = 0
        self._began = False
        self._running = self._stopped = self._paused = self._closed = False
        self._newest: FrameInfo | None = None
        self._look: Callable[[int], None] | None = None
        self.where: Callable[[], str] = lambda: f"frame {self._frame}"
        self.exposed_ns = 0
        self.ours_changes = False

    @property
    def ended(self) -> bool:
        """Whether the camera was stopped and every frame has been read."""
        return self._stopped and not self._waiting()

    def _waiting(self) -> int:
        return len(self._kept) + self._in_buffer()

    def _in_buffer(self) -> int:
        """Frames in the camera's buffer."""
        return self._core.getRemainingImageCount() if self._queue is None else len(self._queue)

    def start(self) -> None:
        """Start the camera. Raises `SourceError` if it cannot."""
        self.begin()
        self._start_camera()

    def begin(self) -> None:
        """The run begins now: times count from here. `start` does it too."""
        self._began_ns = time.perf_counter_ns()
        self._began_wall_s = time.time()

    def take(self, images: int | None) -> None:
        """Start the camera for this many images, or without an end; frames left in its buffer come first.

        After the last image the camera `rests`. Raises `SourceError` if it does not start.
        """
        self.halt()
        self._start_camera(images)

    def halt(self) -> None:
        """Stop the camera until the next `take`; what it has taken can still be read."""
        self._stop_camera()
        self._keep_waiting_frames()

    @property
    def rests(self) -> bool:
        """Whether the camera takes no images now, and all that it took have been read."""
        if self._running and self._images is not None and self._frame >= self._last_image:
            self._stop_camera()
        return not self._running and not self._waiting()

    @property
    def next_image(self) -> int:
        """The number (`camera_frame`) that the first image after a start of the camera now would have."""
        return self._numbers.next_after_restart

    @property
    def counter_resets(self) -> int:
        """How often the camera's counter fell back by itself: what came since has no known place."""
        return self._numbers.resets

    def _start_camera(self, images: int | None = None) -> None:
        self._scope.wait_for_focus(self._settings.stall_s)
        self.devices_changed()
        rate_hz = self.info.frame_rate_hz
        self._period_ns = round(1e9 / rate_hz) if rate_hz > 0 else round(1e6 * self._exposure_ms)
        if self._queue is not None:
            self._queue.patient = self._simulated_time
        self._clock.restart(time.perf_counter_ns(), self._began_ns)
        self._numbers.restart()
        self._images, self._last_image = images, self._frame + (images or 0)
        self._began = True
        self._running = (
            True  # before the start: the first frame can be announced before the core's call returns
        )
        try:
            if images is None:
                self._core.startContinuousSequenceAcquisition(0)
            else:
                self._core.startSequenceAcquisition(images, 0, True)
        except Exception as error:
            self._running = False
            raise SourceError(f"the camera {self._scope.camera} does not start: {reason(error)}") from error
        self._last_frame_s = time.monotonic()

    def announce(self, call: Callable[[], None]) -> None:
        """Have `call` called, in the camera's thread, after each frame, where the camera can do that."""
        if self._queue is not None:
            self._queue.on_frame = call

    def watch_with(self, look: Callable[[int], None]) -> None:
        """Have `look` called with a frame's number, `read_hz` times a second, when the devices are read too."""
        self._look = look

    def quiet_s(self) -> float:
        """For how long there is nothing to `read`, s: infinite where frames are announced and none waits.

        A C++ camera announces nothing; it is left alone for half a frame period after a frame.
        """
        if self._kept or not self._running or self._in_buffer():
            return 0.0
        if self._queue is not None and self._queue.on_frame is not None:
            return math.inf
        return 1e-9 * (self._arrived_ns + self._period_ns // 2 - time.perf_counter_ns())

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame, or None. Raises `SourceError` if the camera has stopped or delivers nothing."""
        if self._kept:
            frame, self.exposed_ns = self._kept.popleft()
            return frame
        deadline_s = time.monotonic() + timeout_s
        while self._in_buffer() == 0:
            now_s = time.monotonic()
            if now_s >= self._check_due_s:
                self._check_due_s = now_s + CHECK_S
                self._check_camera(now_s)
            if now_s >= deadline_s or not self._running:
                return None
            time.sleep(POLL_S)
        return self._pop()

    def _pop(self) -> Frame | None:
        try:
            image, metadata = self._core.popNextImageAndMD()
        except (IndexError, RuntimeError) as error:
            if self._in_buffer() == 0:
                return None
            raise SourceError(f"the camera's buffer cannot be read: {reason(error)}") from error
        return self._frame_of(image, dict(metadata))

    def _check_camera(self, now_s: float) -> None:
        if not self._running or self._core.isSequenceRunning():
            silent_s = now_s - self._last_frame_s
            longest_s = self._settings.stall_s + STALLED_EXPOSURES * 1e-3 * self._exposure_ms
            if self._running and silent_s > longest_s:
                raise SourceError(
                    f"the camera {self._scope.camera} has delivered no frame for {silent_s:.0f} s; check its "
                    "trigger and cable, or increase microscope.stall_s"
                )
            return
        if self._in_buffer():
            return
        why = self._faults.last or self._scope.camera_error()
        if self._images is not None and not why:
            self._stop_camera()
            return
        why = why or "its adapter gives no reason"
        raise SourceError(
            f"the camera {self._scope.camera} stopped by itself after {self._frame} frames: {why}"
        )

    def _frame_of(self, image: np.ndarray[Any, Any], metadata: Mapping[str, Any]) -> Frame:
        if image.shape != self._shape or image.dtype.name != self.info.dtype:
            raise SourceError(
                f"frame {self._frame} of {self._scope.camera} is {image.shape} {image.dtype.name}, the first "
                f"was {self._shape} {self.info.dtype}; do not change the image format during a run"
            )
        taken_ns = self._clock.arrival_ns(metadata, time.perf_counter_ns())
        self._last_frame_s = time.monotonic()
        if self._last_frame_s >= self._state_due_s:
            self._read_state(commanded=False)
        if self._last_frame_s >= self._readings_due_s:
            self._read_devices()
            if self._look is not None:
                self._look(self._frame)
        camera_frame = self._numbers.take(metadata)
        interval_ns, self._arrived_ns = taken_ns - self._arrived_ns, taken_ns
        exposure_ns = 1e6 * self._readings.exposure_ms(taken_ns, self._period_ns, interval_ns)
        camera_time_s = self._clock.take(metadata, taken_ns, exposure_ns, self._period_ns)
        self.exposed_ns = self._clock.exposed_ns
        devices = self._readings.at(self.exposed_ns)
        begun_ns = self.exposed_ns if math.isfinite(camera_time_s) else taken_ns - exposure_ns
        focus_um = self._readings.focus_um(round(begun_ns + exposure_ns / 2))
        self._readings.forget_before(self.exposed_ns)
        own_time_s = 1e-9 * (taken_ns - self._began_ns)
        info = FrameInfo(
            run_id=self._run_id,
            frame=self._frame,
            camera_frame=camera_frame,
            time_s=camera_time_s if math.isfinite(camera_time_s) else own_time_s,
            monotonic_ns=taken_ns,
            wall_s=self._began_wall_s + own_time_s,
            camera_time_s=camera_time_s,
            focus_um=focus_um,
            focus_commanded_um=devices.focus_commanded_um,
            flow_ul_s=devices.flow_ul_s,
            exposure_ms=devices.exposure_ms,
            pixel_size_um=devices.pixel_size_um,
        )
        self._frame += 1
        self._newest = info
        return Frame(info, image)

    def now_s(self) -> float:
        """Now on the clock of the frames' `time_s`, s; in simulated time, the time of the next frame."""
        now_ns, newest = time.perf_counter_ns(), self._newest
        if newest is None or not math.isfinite(newest.camera_time_s):
            return 1e-9 * (now_ns - self._began_ns)
        if self._simulated_time:
            return newest.time_s + 1e-9 * self._period_ns
        return newest.time_s + 1e-9 * (now_ns - self.exposed_ns)

    def _read_devices(self, since_ns: int | None = None) -> None:
        scope = self._scope
        focus_um, flow_ul_s = scope.read_focus(), scope.read_flow()
        time_ns = time.perf_counter_ns() if since_ns is None else since_ns
        self._readings.add(
            Reading(
                time_ns,
                focus_um,
                scope.focus_commanded_um,
                flow_ul_s,
                self._exposure_ms,
                self._pixel_size_um,
            )
        )
        self._readings_due_s = time.monotonic() + 1 / self._settings.read_hz

    def _read_state(self, *, commanded: bool) -> None:
        """Read the state and report what has changed."""
        before, self._state = self._state, self._scope.read_state()
        self._state_due_s = time.monotonic() + STATE_S
        commanded = commanded or self.ours_changes
        if self._state == before:
            return
        self._exposure_ms = self._state.exposure_ms
        fixed_um = self._settings.pixel_size_um
        if fixed_um is None and self._state.pixel_size_um is not None:
            self._pixel_size_um = self._state.pixel_size_um
        self._readings_due_s = 0.0
        for line in changes(before, self._state, fixed_pixel_size_um=fixed_um, commanded=commanded):
            self._report(f"from about {self.where()} on: {line}")

    def devices_changed(self) -> int:
        """Read everything that commands can change; it holds from now on. Returns now (`perf_counter_ns`)."""
        now_ns = time.perf_counter_ns()
        self._read_state(commanded=True)
        self._read_devices(now_ns)
        return now_ns

    def stop(self) -> None:
        """Stop the camera; frames that it has taken can still be read. Idempotent."""
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
        """Start the camera again; frames left in its buffer are delivered first."""
        if self._paused and not self._stopped:
            self._paused = False
            self._keep_waiting_frames()
            self._start_camera()

    def _keep_waiting_frames(self) -> None:
        """Take what is left in the camera's buffer, which its next start empties, of our own starts."""
        while self._began and self._in_buffer():
            frame = self._pop()
            if frame is not None:
                self._kept.append((frame, self.exposed_ns))

    def counts(self) -> dict[str, int]:
        """`received`, `lost_in_camera`, and, if above 0, `left_in_buffer` (taken and not read, so far or, after
        `stop`, at all) and `counter_resets` (the camera's counter fell back by itself).
        """
        counts = {"received": self._frame - len(self._kept), "lost_in_camera": self._numbers.lost}
        left = self._left if self._closed else self._waiting() * (self._running or self._stopped)
        rare = {"left_in_buffer": left, "counter_resets": self._numbers.resets}
        return counts | {name: count for name, count in rare.items() if count}

    def gauges(self) -> dict[str, float]:
        """`buffer`: frames waiting in the camera's buffer."""
        return {"buffer": float(self._waiting())} if self._running else {}

    def close(self) -> None:
        """Stop the camera. Idempotent."""
        if not self._closed:
            self._stopped = True
            try:
                self._stop_camera()
            finally:
                self._left = self._waiting()
                self._closed = True
                self._faults.close()
