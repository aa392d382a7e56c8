"""The classical detector as an `Engine`: threads detect in frames, results come in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.classical.detector import SpotDetector
from engines.classical.widths import WidthCurve
from engines.detection_pool import FrameWork, Outcome
from engines.engine import DetectionError, EngineInfo, images_only, readable, working_dtype
from engines.file_hash import file_hash
from engines.flatfield import load_flat_field
from engines.ordered_threads import default_workers
from engines.particle_limit import strongest
from engines.refine.psf import load_fit_model
from engines.refine.refiner import open_refiner
from engines.refine.sample import to_sample
from engines.settings import DetectorSettings
from stream.messages import Detections, Frame, Predictions

SIGNS = {"bright": 1.0, "dark": -1.0}
WARMUP_SIGMA_PX = 3.0
READER = "the classical detector"


class ClassicalEngine:
    """Finds particles without training; measures depth where it is given a width curve.

    `polarity="auto"` is the curve's polarity; without a curve it is decided by the first frame that shows
    particles, and kept.
    """

    def __init__(
        self, settings: DetectorSettings, pixel_size_um: float, curve_file: Path | None = None
    ) -> None:
        self._settings = settings
        self._pixel_size_um = pixel_size_um
        self._curve = None if curve_file is None else WidthCurve.load(curve_file)
        self._curve_file = curve_file
        self._hash = "" if curve_file is None else file_hash(curve_file)
        self._flat_field = (
            None if settings.bright is None else load_flat_field(settings.bright, settings.dark)
        )
        self._particle = None if curve_file is None else load_fit_model(curve_file)
        self._refiner = open_refiner(self._particle, settings, pixel_size_um)
        self._polarity: str | None = settings.polarity
        if self._polarity == "auto":
            self._polarity = None if self._curve is None else self._curve.polarity
        self._detectors: list[SpotDetector] = []
        self._free: SimpleQueue[SpotDetector] = SimpleQueue()
        self._shape: tuple[int, ...] = ()
        self._workers = settings.workers or default_workers()
        self._work = FrameWork(self._workers, "classical")

    @property
    def info(self) -> EngineInfo:
        """What this engine is; `details` are complete once it has seen an image."""
        details: dict[str, Any] = {"polarity": self._polarity or "auto", "workers": self._workers}
        details["refine"] = False if self._refiner is None else self._refiner.counts()
        if self._detectors:
            details |= self._detectors[0].details
        if self._curve is not None:
            details["z_um"] = [float(self._curve.z_um[0]), float(self._curve.z_um[-1])]
        return EngineInfo(
            name="classical",
            backend="numba",
            device="cpu",
            model="" if self._curve_file is None else str(self._curve_file),
            hash=self._hash,
            depth=self._curve is not None,
            details=details,
        )

    @property
    def pending(self) -> int:
        """Frames submitted whose detections have not been returned yet."""
        return len(self._work)

    def counts(self) -> dict[str, int]:
        """What was left out so far: `no_fit`, `outside_curve`, `doubtful`, `too_many`.

        `explained` are residuals of a brighter particle, `hidden_px` pixels under objects much
        larger than particles, where none are looked for.
        """
        return dict(self._work.left_out)

    def warmup(self, height: int, width: int, dtype: np.dtype[Any], depth: int = 1) -> None:
        """Compile for, and allocate, images of this size and type."""
        images_only(depth, READER)
        self._prepare((height, width))
        dtype = working_dtype(dtype)
        middle = np.iinfo(dtype).max // 2
        rows, columns = np.ogrid[:height, :width]
        spot = np.exp(-((rows - height // 2) ** 2 + (columns - width // 2) ** 2) / (2.0 * WARMUP_SIGMA_PX**2))
        noise = np.random.default_rng(0).normal(0, 2, (height, width))
        image = (middle * (1 - 0.5 * spot) + noise).astype(dtype)
        detector = self._detectors[0]
        detector.stronger_polarity(image)
        for sign in SIGNS.values():
            detector.detect(image, sign)
        if self._refiner is not None:
            self._refiner.warmup(height, width)

    def _prepare(self, shape: tuple[int, int]) -> None:
        if shape == self._shape:
            return
        if len(self._work):
            raise DetectionError(
                f"the images changed from {self._shape} to {shape} during the run; keep one image size"
            )
        if self._flat_field is not None:
            self._flat_field.check(shape)
        self._shape = shape
        self._free = SimpleQueue()
        self._detectors = [
            SpotDetector(*shape, self._settings, self._pixel_size_um, self._curve, self._flat_field)
            for _ in range(self._workers)
        ]
        for detector in self._detectors:
            self._free.put(detector)

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        """Take a frame; waits while twice as many frames as there are workers are pending."""
        frame = readable(frame, self._shape, READER)
        self._prepare(frame.image.shape)
        if self._polarity is None:
            self._polarity = self._decide_polarity(frame.image)
        self._work.give(partial(self._detect, frame, self._polarity))

    def _decide_polarity(self, image: npt.NDArray[Any]) -> str | None:
        detector = self._free.get()
        try:
            return detector.stronger_polarity(image)
        finally:
            self._free.put(detector)

    def _detect(self, frame: Frame, polarity: str | None) -> Outcome:
        if polarity is None:
            return Detections.empty(frame.info), Counter()
        detector = self._free.get()
        try:
            table, left_out = detector.detect(frame.image, SIGNS[polarity])
            table, beyond = strongest(
                self._refine(detector, frame.image, table), self._settings.max_particles
            )
            left_out["too_many"] += beyond
            table = to_sample(table, self._particle, self._pixel_size_um, frame.image.shape)
        except (ArithmeticError, ValueError, IndexError) as error:
            raise DetectionError(f"frame {frame.info.frame} could not be processed: {error}") from error
        finally:
            self._free.put(detector)
        return Detections(frame.info, table), left_out

    def _refine(
        self, detector: SpotDetector, image: npt.NDArray[Any], table: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        if self._refiner is None:
            return table
        if self._flat_field is None:
            return self._refiner.refine(image, table)
        detector.load(image, -1.0)  # the detector's own image; +1 in it is the reference's darkness
        return self._refiner.refine(detector.image, table, self._flat_field.grey_values)

    def announce(self, call: Callable[[], None]) -> bool:
        """Have `call` called, from any thread, when there may be results. Returns True."""
        self._work.announce(call)
        return True

    def results(self, timeout_s: float) -> list[Detections]:
        """Return what is ready, in order; waits up to `timeout_s` for the first."""
        return self._work.results(timeout_s)

    def close(self) -> None:
        """Wait for the frames in progress and stop the threads. Idempotent."""
        self._work.close()
