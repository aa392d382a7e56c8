"""One sequence of the simulated camera: schedule, lost frames, rendering, truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from acquisition.microscope.frame_stamps import FRAME_NUMBER_KEY, TIME_KEY
from acquisition.simulated.truth import TruthFile
from acquisition.simulated.world import Particles, World

MEMORY_S = 1.0  # s that the camera can be behind before it loses frames, like the memory of a real one

BufferSource = Callable[[Sequence[int], npt.DTypeLike], npt.NDArray[Any]]


@dataclass(slots=True)
class CameraState:
    """Settings and counts that can change while frames are taken."""

    frame_rate_hz: float = 30.0
    exposure_ms: float = 0.55
    drop_every: int = 0
    least_period_s: float = 0.0
    particles: bool = True
    frames_lost: int = 0
    last_error: str = ""


class Drawing(Protocol):
    """Draws particles as the camera sees them."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    lamp: float
    """Brightness of the light, 1 by default, 0 for none."""

    def draw(self, particles: Particles, out: Any) -> None:
        """Draw into a C-contiguous image of `shape` and `dtype`."""
        ...


class FrameSequence:
    """Frames from number 0 on an absolute schedule that starts now.

    A camera that is late catches up, like one with a memory, until it is `MEMORY_S` behind; then it loses frames.
    Lost frames take their number and their time, but are not delivered. Without real time, frames come as fast as
    they are drawn, at most one in `CameraState.least_period_s` of the wall clock. The end of each exposure, also of
    a lost frame, triggers the focus drive.
    """

    def __init__(self, world: World, drawing: Drawing, state: CameraState, truth: TruthFile | None) -> None:
        self._world, self._drawing, self._state, self._truth = world, drawing, state, truth
        self._due_s, self._next_s = world.time_s, 0.0
        self._closed = False
        world.set_streaming(True)

    def frames(self, count: int | None, get_buffer: BufferSource) -> Iterator[Mapping[str, str]]:
        """Deliver `count` frames, or frames until closed: fill a buffer, then yield its metadata."""
        number = delivered = 0
        try:
            while not self._closed and (count is None or delivered < count):
                due_s = self._due_s
                self._due_s += 1 / self._state.frame_rate_hz
                if self._is_lost(number, due_s):
                    self._state.frames_lost += 1
                    self._world.trigger_focus(due_s + 1e-3 * self._state.exposure_ms)
                else:
                    buffer = get_buffer(self._drawing.shape, self._drawing.dtype)
                    self._expose(number, due_s, buffer)
                    self._world.trigger_focus(due_s + 1e-3 * self._state.exposure_ms)
                    delivered += 1
                    if delivered == count:
                        self.close()
                    yield {FRAME_NUMBER_KEY: str(number), TIME_KEY: f"{due_s:.6f}"}
                number += 1
        finally:
            self.close()

    def close(self) -> None:
        """End the sequence: close the truth file and move simulated time past the last frame. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._world.set_streaming(False)
        self._world.skip_to(self._due_s)
        if self._truth is not None:
            self._truth.close()

    def _is_lost(self, number: int, due_s: float) -> bool:
        """Wait until the frame is due; returns whether the camera loses it."""
        if self._world.real_time:
            late_s = time.perf_counter() - self._world.wall_s(due_s)
            if late_s < 0:
                time.sleep(-late_s)
            elif late_s > MEMORY_S:
                return True
        else:
            time.sleep(max(0.0, self._next_s - time.perf_counter()))
            self._next_s = time.perf_counter() + self._state.least_period_s
        every = self._state.drop_every
        return every > 0 and (number + 1) % every == 0

    def _expose(self, number: int, due_s: float, buffer: npt.NDArray[Any]) -> None:
        try:
            particles = self._world.particles_at(due_s)
            if not self._state.particles:
                particles = particles.none()
            whole = buffer.flags.c_contiguous and buffer.flags.aligned
            target = buffer if whole else np.empty(buffer.shape, buffer.dtype)
            self._drawing.draw(particles, target)
            if not whole:
                buffer[...] = target
            if self._truth is not None:
                self._truth.add(number, particles)
        except Exception as error:
            self._state.last_error = str(error)
            raise
