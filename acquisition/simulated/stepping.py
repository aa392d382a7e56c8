"""The simulated microscope frame by frame: time passes only when a frame is read."""

from __future__ import annotations

import time

import numpy as np

from acquisition.microscope.microscope import Microscope
from acquisition.simulated.properties import shared_world
from stream.errors import ConfigurationError, SourceError
from stream.messages import Frame, FrameInfo


class SteppedStream:
    """Frames of a simulated microscope (`RealTime` 0), each taken when it is read.

    Whatever happens between two reads happens between two exposures, however long it takes in real time: a closed
    loop gives the same results on a slow machine as on a fast one. It can be used as the stream of
    `acquisition.commands.execution.CommandExecutor`. `world` has the truth.
    """

    def __init__(self, microscope: Microscope, *, run_id: str) -> None:
        """Raises `ConfigurationError` if the microscope is real or runs in real time."""
        if not microscope.simulated_time():
            raise ConfigurationError(
                "only a simulated microscope in simulated time can be stepped; set its camera's RealTime to 0"
            )
        self._scope = microscope
        self._run_id = run_id
        self.info = microscope.info()
        self.world = shared_world(str(microscope.core.getProperty(microscope.camera, "World")))
        self._first_s = 0.0
        self._next_s = 0.0
        self._frame = 0
        self.exposed_ns = 0
        self.ours_changes = False

    def read(self) -> Frame:
        """Take the next frame. Raises `SourceError` if the camera fails."""
        scope, core = self._scope, self._scope.core
        focus_commanded_um, flow_ul_s = scope.focus_commanded_um, scope.read_flow()
        camera_s = self.world.time_s
        focus_um = self.world.focus.encoder_um(camera_s)
        self.exposed_ns = time.perf_counter_ns()
        try:
            core.snapImage()
            image = np.array(core.getImage())
        except Exception as error:
            raise SourceError(
                f"{scope.camera} cannot take an image: {scope.camera_error() or error}"
            ) from error
        if self._frame == 0:
            self._first_s = camera_s
        time_s = camera_s - self._first_s
        info = FrameInfo(
            run_id=self._run_id,
            frame=self._frame,
            camera_frame=self._frame,
            time_s=time_s,
            monotonic_ns=time.perf_counter_ns(),
            wall_s=time.time(),
            camera_time_s=time_s,
            focus_um=focus_um,
            focus_commanded_um=focus_commanded_um,
            flow_ul_s=flow_ul_s,
            exposure_ms=scope.read_exposure(),
            pixel_size_um=scope.known_pixel_size_um() or self.info.pixel_size_um,
        )
        self._frame += 1
        self._next_s = time_s + 1.0 / self.info.frame_rate_hz
        return Frame(info, image)

    def devices_changed(self) -> int:
        """Changes hold from the next frame on; returns now (`perf_counter_ns`)."""
        return time.perf_counter_ns()

    def now_s(self) -> float:
        """Now on the clock of the frames' `time_s`, s: half a period after the next frame, which comes first."""
        return self._next_s + 0.5 / self.info.frame_rate_hz
