"""A microscope that runs on a simulated clock: what each of its frames was exposed with is known exactly."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from simulated_clock import SimulatedClock

from acquisition.microscope.frame_stamps import ELAPSED_KEY, FRAME_NUMBER_KEY, IMAGE_NUMBER_KEY, TIME_KEY
from acquisition.microscope.watched_state import WatchedState
from acquisition.settings import MicroscopeSettings
from acquisition.source import SourceInfo

LATEST_S = 0.002  # frames reach the core up to so long after their end


@dataclass(frozen=True)
class Exposed:
    """What held when a frame's exposure began."""

    begin_s: float
    exposure_ms: float
    flow_ul_s: float


class ScriptedMicroscope:
    """Camera, pump and the camera's buffer; it is its own core.

    With `rate_hz` the camera has a clock and a counter and exposes at that rate, as scientific cameras do; without,
    the next exposure begins as the last one ends, as in Micro-Manager's demo camera.
    """

    camera, pump, focus, shutter = "Camera", "Pump", "", ""
    focus_commanded_um = math.nan
    _seq_buffer = None

    def __init__(self, clock: SimulatedClock, *, rate_hz: float = math.nan, exposure_ms: float) -> None:
        self.core = self
        self.settings = MicroscopeSettings(config="scripted")
        self._truth: list[Exposed] = []
        self._clock, self._rate_hz = clock, rate_hz
        self._exposure_ms, self._flow_ul_s = exposure_ms, 0.0
        self._random = np.random.default_rng(1)
        self._coming: deque[tuple[float, dict[str, str]]] = deque()
        self._arrived: deque[dict[str, str]] = deque()
        self._running, self._plugged = False, True
        self._began_s = self._next_s = self._arrived_s = 0.0

    @property
    def truth(self) -> list[Exposed]:
        """What held when each frame so far was exposed."""
        self._catch_up()
        return self._truth

    def _catch_up(self) -> None:
        """Expose every frame that has begun by now, and let those arrive whose time has come."""
        while self._running and self._plugged and self._next_s <= self._clock.now_s:
            begin_s, exposure_s = self._next_s, 1e-3 * self._exposure_ms
            self._truth.append(Exposed(begin_s, self._exposure_ms, self._flow_ul_s))
            number = len(self._truth) - 1
            late_s = float(self._random.uniform(0, LATEST_S))
            self._arrived_s = max(self._arrived_s, begin_s + exposure_s + late_s)
            elapsed_ms = f"{1e3 * (self._arrived_s - self._began_s):.4f}"
            metadata = {IMAGE_NUMBER_KEY: str(number), ELAPSED_KEY: elapsed_ms}
            if math.isfinite(self._rate_hz):
                metadata = {FRAME_NUMBER_KEY: str(number), TIME_KEY: f"{begin_s - self._began_s:.6f}"}
            self._coming.append((self._arrived_s, metadata))
            self._next_s += 1 / self._rate_hz if math.isfinite(self._rate_hz) else exposure_s
        while self._coming and self._coming[0][0] <= self._clock.now_s:
            self._arrived.append(self._coming.popleft()[1])

    def info(self) -> SourceInfo:
        return SourceInfo(8, 8, 1, "uint8", 0.8, self._rate_hz, None, self.camera, "scripted")

    def simulated_time(self) -> bool:
        return False

    def camera_error(self) -> str:
        return ""

    def wait_for_focus(self, _timeout_s: float) -> None:
        """There is no focus drive."""

    def read_focus(self) -> float:
        return math.nan

    def read_state(self) -> WatchedState:
        return WatchedState(0.8, self._exposure_ms, 8, None)

    def read_flow(self) -> float:
        return self._flow_ul_s

    def set_flow(self, flow_ul_s: float) -> None:
        self._catch_up()
        self._flow_ul_s = flow_ul_s

    def set_exposure(self, exposure_ms: float) -> None:
        self._catch_up()
        self._exposure_ms = exposure_ms

    def unplug(self) -> None:
        """From now on no image comes, and the core does not notice."""
        self._catch_up()
        self._plugged = False

    def close(self) -> None:
        self._running = False

    # the core
    def getCameraDevice(self) -> str:
        return self.camera

    def isPyDevice(self, _label: str) -> bool:
        return False

    def startContinuousSequenceAcquisition(self, _interval_ms: float) -> None:
        self._running = True
        self._began_s = self._next_s = self._clock.now_s

    def stopSequenceAcquisition(self) -> None:
        self._catch_up()
        self._running = False

    def isSequenceRunning(self) -> bool:
        return self._running

    def getRemainingImageCount(self) -> int:
        self._catch_up()
        return len(self._arrived)

    def popNextImageAndMD(self) -> tuple[np.ndarray, dict[str, str]]:
        return np.zeros((8, 8), np.uint8), self._arrived.popleft()
