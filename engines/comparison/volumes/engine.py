"""DetNet3D or DM-DetNet3D as an `Engine`: positions in whole voxels and no standard errors, as published."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engines.comparison.volumes.kinds import TITLES
from engines.comparison.volumes.maxima import local_maxima
from engines.comparison.volumes.model import HourglassModel
from engines.detection_pool import FrameWork, Outcome
from engines.engine import DetectionError, EngineInfo, readable
from engines.file_hash import file_hash
from engines.ordered_threads import default_workers
from engines.settings import DetectorSettings
from stream.messages import Detections, Frame, Predictions

TRIED_SIDE = 64
"""px of the stack that `warmup` tries the network on: its time does not depend on what was run before."""


class HourglassEngine:
    """Finds the maxima of the network's map; `confidence` is the height of the map there.

    Of a map's maxima those from the file's threshold on are particles, and of those the ones of
    `detector.min_confidence` where that is given and higher. Raises `ConfigurationError` for a file without such a
    network.
    """

    def __init__(self, settings: DetectorSettings, pixel_size_um: float, path: Path) -> None:
        self._model = HourglassModel(path)
        card = self._model.card
        asked = settings.min_confidence or 0.0
        self._threshold = max(card.threshold, asked)
        self._most = settings.max_particles
        self._pixel_size_um = pixel_size_um
        self._reader = TITLES[card.kind]
        self._path, self._hash = path, file_hash(path)
        self._workers = settings.workers or default_workers()
        self._work = FrameWork(self._workers, card.kind)
        self._shape: tuple[int, ...] = ()

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        card = self._model.card
        details = {"threshold": self._threshold, "workers": self._workers, "made_from": card.made_from}
        return EngineInfo(card.kind, "onnxruntime", "cpu", str(self._path), self._hash, True, details)

    @property
    def pending(self) -> int:
        """Volumes submitted whose detections have not been returned yet."""
        return len(self._work)

    def counts(self) -> dict[str, int]:
        """What was left out so far: `too_many`."""
        return dict(self._work.left_out)

    def warmup(self, height: int, width: int, dtype: np.dtype[Any], depth: int = 1) -> None:
        """Run the network once, on a part of such a volume. Raises `DetectionError` for images."""
        if depth < 2:
            raise DetectionError(f"{self._reader} reads volumes, and the frames are single images")
        self._model(np.zeros((depth, min(height, TRIED_SIDE), min(width, TRIED_SIDE)), np.float32))

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        """Take a volume; waits while twice as many as there are workers are pending."""
        frame = readable(frame, self._shape, self._reader, volumes=True)
        if frame.info.volume is None:
            raise DetectionError(
                f"frame {frame.info.frame} does not say how far apart its slices are; give --z-step"
            )
        self._shape = frame.image.shape
        self._work.give(partial(self._detect, frame))

    def _detect(self, frame: Frame) -> Outcome:
        volume = frame.info.volume
        assert volume is not None
        missing = np.zeros(len(frame.image), np.bool_)
        missing[list(volume.missing)] = True
        voxels, values = local_maxima(self._model(frame.image, missing), self._threshold)
        there = ~missing[voxels[:, 0]]
        voxels, values = voxels[there], values[there]
        left_out = Counter({"too_many": max(0, len(values) - self._most)})
        z, y, x = voxels[: self._most].T
        heights = np.array(volume.z_um, np.float64)
        found = Detections.from_columns(
            frame.info,
            x_um=x * self._pixel_size_um,
            y_um=y * self._pixel_size_um,
            z_um=heights[z],
            confidence=values[: self._most],
            time_offset_s=np.array(volume.time_s)[z] if volume.time_s else np.full(len(z), math.nan),
        )
        return found, left_out

    def announce(self, call: Callable[[], None]) -> bool:
        """Have `call` called, from any thread, when there may be results. Returns True."""
        self._work.announce(call)
        return True

    def results(self, timeout_s: float) -> list[Detections]:
        """Return what is ready, in order; waits up to `timeout_s` for the first."""
        return self._work.results(timeout_s)

    def close(self) -> None:
        """Wait for the volumes in progress and stop the threads. Idempotent."""
        self._work.close()
