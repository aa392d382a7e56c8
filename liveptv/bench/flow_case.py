"""The part of `liveptv bench engine` that measures predictions: an engine and a tracker on images of a flow.

All particles move along x by the same step, so that a few rendered images, each with noise of its own, make a film
without end: frame n is image n mod N, rolled by n steps. Particles leave on one side and enter on the other. The
time that rolling and tracking take, in the thread that submits the frames, is measured and taken off.
"""

from __future__ import annotations

import time
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.engine import Engine
from engines.prediction_choice import LAG
from stream.messages import Detections, Frame, FrameInfo, Predictions
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

STEP_SPACINGS = (
    0.15  # displacement a frame, in mean distances of neighbours; that of Franchini & Krevor (2020)
)
FRAME_S = 1.0 / 24.0
WARM_UP = 12  # frames before the measurement: the tracker is sure of its tracks and the kernels are compiled
LONGEST_S = 120.0  # s one frame may take


class Film:
    """Frames of a flow from `images` (N, H, W), which show the same particles with different noise."""

    def __init__(self, images: npt.NDArray[Any], particles: int, pixel_size_um: float) -> None:
        _, height, width = images.shape
        self._images, self._pixel_size_um = images, pixel_size_um
        self.step_px = max(1, round(STEP_SPACINGS * (height * width / max(particles, 1)) ** 0.5))
        self._numbers = count()

    def next(self) -> Frame:
        """The next frame."""
        number = next(self._numbers)
        image = np.roll(self._images[number % len(self._images)], number * self.step_px, axis=1)
        time_s = number * FRAME_S
        info = FrameInfo("bench", number, number, time_s, 0, time_s, pixel_size_um=self._pixel_size_um)
        return Frame(info, image)


class Follower:
    """Gives an engine the frames of a film; with `tells`, also what a tracker expects in them, as a replay does."""

    def __init__(self, engine: Engine, film: Film, *, tells: bool) -> None:
        self._engine, self._film, self._tells = engine, film, tells
        self._tracker = OnlineTracker(TrackerSettings(frame_rate_hz=1.0 / FRAME_S))
        self._known: dict[int, Predictions] = {}
        self._tracked = -1
        self.found: list[int] = []
        self.own_s = 0.0

    def run(self, seconds: float, fewest: int) -> int:
        """Work for so long, on `fewest` frames at least; returns the number of frames, all of them finished."""
        given, begun_s = 0, time.perf_counter()
        while given < fewest or time.perf_counter() < begun_s + seconds:
            own_s = time.thread_time()
            frame = self._film.next()
            self.own_s += time.thread_time() - own_s
            self._engine.submit(frame, self._prediction(frame.info.frame - LAG))
            given += 1
            self._track(self._engine.results(0.0))
        while self._engine.pending:
            self._track(self._engine.results(LONGEST_S))
        return given

    def _prediction(self, number: int) -> Predictions | None:
        if not self._tells or number < 0:
            return None
        while self._tracked < number:
            self._track(self._engine.results(LONGEST_S))
        known = self._known.pop(number, None)
        return known if known is not None and len(known) else None

    def _track(self, found: list[Detections]) -> None:
        own_s = time.thread_time()
        for detections in found:
            self.found.append(len(detections))
            if self._tells:
                self._tracker.step(detections)
                self._tracked = detections.info.frame
                self._known[self._tracked] = self._tracker.predictions()
        self.own_s += time.thread_time() - own_s


def measure_flow(
    engine: Engine,
    images: npt.NDArray[Any],
    particles: int,
    pixel_size_um: float,
    seconds: float,
    *,
    tells: bool,
) -> dict[str, Any]:
    """Frames/s and processor time of the engine, and how many particles a frame came from which way.

    `predicted_per_frame`, `searched_per_frame` and `pixels_read` (part of all pixels) are there where the engine
    counts them; `tracker_ms_per_frame` is what the tracker and the film took beside the engine.
    """
    follower = Follower(engine, Film(images, particles, pixel_size_um), tells=tells)
    follower.run(0.0, WARM_UP)
    before = dict(engine.info.details.get("prediction") or {})
    follower.own_s, follower.found = 0.0, []
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    frames = follower.run(seconds, WARM_UP)
    wall_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
    row = {
        "prediction": "auto" if tells else "off",
        "frames_per_s": frames / wall_s,
        "cpu_ms_per_frame": 1e3 * (cpu_s - follower.own_s) / frames,
        "tracker_ms_per_frame": 1e3 * follower.own_s / frames,
        "found_per_frame": float(np.mean(follower.found)),
        "frames": frames,
    }
    after = dict(engine.info.details.get("prediction") or {}) if tells else {}
    for name in ("predicted", "searched", "ghosts"):
        if name in after:
            row[f"{name}_per_frame"] = (after[name] - before.get(name, 0)) / frames
    if "tiles_px" in after:
        row["pixels_read"] = float(after["tiles_px"])
    return row
