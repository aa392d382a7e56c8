"""Matched filters and the fit as an `Engine`: for objects with an image model, without a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.detection_pool import FrameWork, Outcome
from engines.engine import DetectionError, EngineInfo, images_only, readable, working_dtype
from engines.file_hash import file_hash
from engines.flatfield import load_flat_field
from engines.matched.filters import Candidates, MatchedFilters
from engines.matched.object_model import is_rough, load_object_model
from engines.matched.pursuit import Pursuit
from engines.ordered_threads import default_workers
from engines.particle_limit import strongest_of
from engines.refine.quantity import UNKNOWN_SIGMA_UM
from engines.refine.refiner import Fitted, Refiner, confidence_of
from engines.refine.rendering import A
from engines.settings import DetectorSettings
from stream.errors import ConfigurationError
from stream.messages import NO_PROPERTIES, Detections, Frame, Predictions

READER = "the matched filters"
NOT_FITTED = 0.25
"""Factor on the confidence of what the fit did not accept: an edge, a piece of dirt, an object of another kind."""
PIXEL_SIZE_TOLERANCE = 0.05
"""Relative difference in pixel size up to which a model is used, as for networks."""


class _SureRefiner(Refiner):
    """The fit, which also says how sure a particle is: by its own brightness, not by the filter's answer."""

    def put_fitted(
        self,
        table: npt.NDArray[np.float64],
        which: npt.NDArray[np.bool_],
        fitted: Fitted,
        light: float,
        shape: tuple[int, ...],
    ) -> None:
        super().put_fitted(table, which, fitted, light, shape)
        sure = fitted.theta[which, A] / fitted.sigma[which, A]
        table[Detections.COLUMNS.index("confidence"), which] = confidence_of(sure)


class MatchedEngine:
    """Finds objects by the image model of a file, and measures places and what they have in its third coordinate.

    Raises `ConfigurationError` for a file that cannot be read or was made for other images.
    """

    def __init__(self, settings: DetectorSettings, pixel_size_um: float, model_file: Path) -> None:
        self._settings, self._pixel_size_um = settings, pixel_size_um
        self._model = load_object_model(model_file)
        if abs(pixel_size_um / self._model.pixel_size_um - 1) > PIXEL_SIZE_TOLERANCE:
            raise ConfigurationError(
                f"{model_file} was made for {self._model.pixel_size_um:g} um a pixel, but the images have "
                f"{pixel_size_um:g}; correct the pixel size if it is wrong, or make a model for it"
            )
        if settings.polarity not in ("auto", self._model.polarity):
            raise ConfigurationError(
                f"{model_file} was made for {self._model.polarity} objects, not {settings.polarity} ones; set "
                'detector.polarity to "auto"'
            )
        self._file, self._hash = model_file, file_hash(model_file)
        self._is_rough = is_rough(model_file)
        self._refiner = _SureRefiner(self._model, pixel_size_um)
        self._flat_field = (
            None if settings.bright is None else load_flat_field(settings.bright, settings.dark)
        )
        self._workers = settings.workers or default_workers()
        self._work = FrameWork(self._workers, "matched")
        self._free: SimpleQueue[MatchedFilters | Pursuit] = SimpleQueue()
        self._threshold = 0.0
        self._shape: tuple[int, ...] = ()

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        quantity = self._model.quantity
        details: dict[str, Any] = {
            "polarity": self._model.polarity,
            "workers": self._workers,
            "measured_by": "symmetry" if self._is_rough else "fit",
            "refine": self._refiner.counts(),
            "threshold_sigmas": round(self._threshold, 2),
        }
        if quantity is not None:
            ends = quantity.values([self._model.z_min_um, self._model.z_max_um])
            details["measures"] = {quantity.name: [float(end) for end in ends]}
        depth = quantity is None or quantity.is_depth
        return EngineInfo("matched", "numba", "cpu", str(self._file), self._hash, depth, details)

    @property
    def pending(self) -> int:
        """Frames submitted whose detections have not been returned yet."""
        return len(self._work)

    def counts(self) -> dict[str, int]:
        """What was left out so far: `doubtful`, `too_many`, and frames without light as `no_light`."""
        return dict(self._work.left_out)

    def warmup(self, height: int, width: int, dtype: np.dtype[Any], depth: int = 1) -> None:
        """Compile for, and allocate, images of this size and type."""
        images_only(depth, READER)
        self._prepare((height, width))
        if not self._is_rough:
            self._refiner.warmup(height, width)
        filters = self._free.get()
        try:
            noise = np.random.default_rng(0).normal(0.0, 1.0, (height, width)).astype(np.float32)
            filters.find(noise, (0.0, 1.0))
        finally:
            self._free.put(filters)
        working_dtype(dtype)

    def _prepare(self, shape: tuple[int, int]) -> None:
        if shape == self._shape:
            return
        if len(self._work):
            raise DetectionError(
                f"the images changed from {self._shape} to {shape} during the run; keep one image size"
            )
        if self._flat_field is not None:
            self._flat_field.check(shape)
        self._shape, self._free = shape, SimpleQueue()
        model, threshold = self._model, self._settings.threshold
        rough = Pursuit(model, shape, threshold) if self._is_rough else None
        for _ in range(self._workers):
            filters = rough or MatchedFilters(model, shape, threshold)
            self._threshold = filters.threshold
            self._free.put(filters)

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        """Take a frame; waits while twice as many frames as there are workers are pending."""
        frame = readable(frame, self._shape, READER)
        self._prepare(frame.image.shape)
        self._work.give(partial(self._detect, frame))

    def _detect(self, frame: Frame) -> Outcome:
        image: npt.NDArray[Any] = frame.image
        full_light = None
        if self._flat_field is not None:
            corrected = np.empty(image.shape, np.float32)
            self._flat_field.correct(image, corrected)
            image, full_light = corrected, self._flat_field.grey_values
        elif not image.any():
            return Detections.empty(frame.info), Counter(no_light=1)
        filters = self._free.get()
        try:
            contrast, drawn, light, noise = self._refiner.prepare(image, full_light)
            found = filters.find(contrast, noise)
            table = self._table(found, light)
            row = Detections.COLUMNS.index
            doubtful = table[row("confidence")] < self._settings.least_confidence
            table = np.ascontiguousarray(table[:, ~doubtful])
            if self._settings.refine and isinstance(filters, MatchedFilters) and table.shape[1]:
                table = self._refiner.refine(image, table, full_light)
                # the fit has drawn what it found: neighbours that touch may have hidden each other from the filters
                hidden = filters.hidden(contrast, drawn, noise, found)
                if hidden.x_px.size:
                    table = np.hstack([table, self._table(hidden, light)])
                    table = self._refiner.refine(image, table, full_light)
                table[row("confidence"), ~np.isfinite(table[row("chi_square")])] *= NOT_FITTED
            kept, beyond = strongest_of(table, self._settings.max_particles)
            table, properties = np.ascontiguousarray(table[:, kept]), NO_PROPERTIES
            if self._model.quantity is not None:
                properties = type(NO_PROPERTIES).unknown((), table.shape[1])
                table, properties = self._model.quantity.taken_out(table, properties)
        except (ArithmeticError, ValueError, IndexError) as error:
            raise DetectionError(f"frame {frame.info.frame} could not be processed: {error}") from error
        finally:
            self._free.put(filters)
        return Detections(frame.info, table, properties), Counter(
            doubtful=int(doubtful.sum()), too_many=beyond
        )

    def _table(self, found: Candidates, light: float) -> npt.NDArray[np.float64]:
        """Candidates as the table of a `Detections`, in an image of this background in grey values."""
        row, pixel = Detections.COLUMNS.index, self._pixel_size_um
        table = np.full((len(Detections.COLUMNS), found.x_px.size), np.nan)
        table[row("x_um")], table[row("y_um")] = found.x_px * pixel, found.y_px * pixel
        table[row("z_um")], table[row("sigma_z_um")] = found.depth_um, UNKNOWN_SIGMA_UM
        table[row("sigma_x_um")], table[row("sigma_y_um")] = (
            found.sigma_x_px * pixel,
            found.sigma_y_px * pixel,
        )
        table[row("brightness")] = found.contrast * light
        table[row("confidence")], table[row("flags")] = confidence_of(found.strength), 0.0
        return table

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
