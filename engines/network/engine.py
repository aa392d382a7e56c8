"""The network detector as an `Engine`: one frame per thread, frames in parallel, results in order."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.blocks import BLOCK_PX
from engines.detection_pool import FrameWork, Outcome
from engines.engine import (
    BackEndError,
    DetectionError,
    EngineInfo,
    WrongNumbersError,
    images_only,
    readable,
    working_dtype,
)
from engines.fit_budget import COSTS_KEPT, FrameCost
from engines.flatfield import load_flat_field
from engines.frame_tasks import FrameTask, FrameTasks
from engines.network.decode import compile_decoding, decode, slots_of
from engines.network.model import Network, OnnxModel
from engines.network.postprocessing import check_fits, detections_of, in_sample, tables_of
from engines.network.preparation import Preparation
from engines.network.rehearsal import IN_TIME, drawn_frames, expected_from
from engines.network.soundness import fault_of
from engines.network.tiles import margin_blocks, origin_px, slots_in
from engines.ordered_threads import default_workers
from engines.prediction.assembly import Reading
from engines.prediction.search import PredictedSearch
from engines.prediction.tiles import Rectangle
from engines.refine.fit_beside import FitBeside
from engines.refine.kinds import open_kinds_refiner
from engines.refine.refiner import NETWORK_SEARCH_UM, Refiner, open_refiner
from engines.refine.turns import ALL, Allowance
from engines.settings import DetectorSettings
from stream.messages import Detections, Frame, Predictions

log = logging.getLogger(__name__)
READER = "the network"


class NetworkEngine:
    """Finds particles and their depths with a trained network, on the processor's cores.

    `open_network(model, workers)` opens what runs the network in place of ONNX Runtime, `workers` frames at a
    time. Raises `ConfigurationError` for a model that cannot be read or was made for other images, and what
    `open_network` raises.

    `fit_share` (0 to 1) is how much of the fit's work may be done in the frames submitted from now on, `fit_ms` the
    time that it may take in each; the other particles keep the network's answer, flagged as `REDUCED`. Any thread
    may set them. A frame that has `decisions` in its info is processed as these say; the detections have those that
    were made.
    """

    def __init__(
        self,
        settings: DetectorSettings,
        pixel_size_um: float,
        model: Path,
        open_network: Callable[[OnnxModel, int], Network] | None = None,
    ) -> None:
        from engines.file_hash import file_hash

        self._settings = settings
        self._model = OnnxModel(model)
        self._path, self._hash = model, file_hash(model)
        card = self._model.card
        check_fits(card, settings, pixel_size_um, model)
        self._particle = self._model.psf()
        self._refiner = open_refiner(self._particle, settings, pixel_size_um, NETWORK_SEARCH_UM)
        if self._refiner is not None and card.kinds > 1:
            models = [self._model.psf(kind) for kind in range(card.kinds)]
            self._refiner = open_kinds_refiner(models, pixel_size_um, NETWORK_SEARCH_UM)
        bright = settings.bright
        self._flat_field = None if bright is None else load_flat_field(bright, settings.dark)
        self._shape: tuple[int, ...] = ()
        self._free: SimpleQueue[Preparation] = SimpleQueue()
        workers = settings.workers or default_workers()
        self._network: Network = self._model if open_network is None else open_network(self._model, workers)
        self._prediction = self._predicting(pixel_size_um)
        self._work = FrameWork(workers, "network")
        self._tasks = FrameTasks(self._refiner)
        self._fit_beside: FitBeside | None = None
        self.fit_ready = Event()
        self.fit_ready.set()
        self.fit_share = 1.0
        self.fit_ms = math.inf
        self._costs: deque[FrameCost] = deque(maxlen=COSTS_KEPT)

    def let_fit_join(self, say: Callable[[str], None]) -> None:
        """Do not wait, in `warmup`, for a fit that has to be compiled first.

        Until `fit_ready` is set, particles keep the network's answer, flagged as `REDUCED`. `say` gets one line
        then, and one when the fit has joined.
        """
        if self._refiner is not None:
            self._fit_beside = FitBeside(say)
            self.fit_ready = self._fit_beside.ready

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        card = self._model.card
        details: dict[str, Any] = card.facts | {
            "workers": self._work.workers,
            "precision": self._network.precision,
            "refine": False if self._refiner is None else self._refiner.counts(),
            "prediction": False if self._prediction is None else self._prediction.counts(),
            "stated_errors": {} if self._refiner is None else self._refiner.stated(),
        }
        network = self._network
        return EngineInfo(
            "network", network.backend, network.device, str(self._path), self._hash, card.depth, details
        )

    @property
    def pending(self) -> int:
        """Frames submitted whose detections have not been returned yet."""
        return len(self._work)

    def counts(self) -> dict[str, int]:
        """Totals so far: particles left out, by reason, and frames without light as `no_light`."""
        return dict(self._work.left_out)

    def warmup(self, height: int, width: int, dtype: np.dtype[Any], depth: int = 1) -> None:
        """Compile for, and allocate, images of this size and type."""
        images_only(depth, READER)
        self._prepare((height, width))
        dtype = working_dtype(dtype)
        image = np.full((height, width), np.iinfo(dtype).max // 2, dtype)
        self._look_at(image)
        if self._fit_beside is not None:
            self._fit_beside.start()
        if self._refiner is not None and self._particle is not None and self.fit_ready.is_set():
            self._refiner.warmup(height, width)
            frames = drawn_frames(self._model.card, self._particle, (height, width), dtype, self._flat_field)
            self._rehearse(self._refiner, *frames)
        else:
            self._work.on_every_thread(partial(self._look_at, image))

    def _rehearse(self, refiner: Refiner, first: Frame, second: Frame) -> None:
        """Process drawn frames on each thread, and forget them."""

        def go_through() -> None:
            found, _ = self._detect(first, IN_TIME)
            self._detect(second, IN_TIME, expected_from(found))

        self._work.on_every_thread(go_through)
        refiner.forget()
        if self._prediction is not None:
            self._prediction.forget()
        self.costs()

    def _look_at(self, image: npt.NDArray[Any]) -> None:
        """Process an image like a frame, so that everything is compiled and allocated."""
        preparation = self._free.get()
        try:
            preparation.fill(image)
            maps = self._run(preparation.input, "the first image")
            if self._prediction is not None:
                corner = np.ascontiguousarray(preparation.input[:, :, : 4 * BLOCK_PX, : 4 * BLOCK_PX])
                self._run_part(corner, (0, 0), preparation.input.shape, "part of the first image")
            if maps.ndim == 3:
                compile_decoding()
            else:  # a few slots that are particles, so that all of the decoding is compiled
                decode(np.ones_like(maps[:4, :4], order="C"))
        finally:
            self._free.put(preparation)

    def _prepare(self, shape: tuple[int, int]) -> None:
        if shape == self._shape:
            return
        if self._flat_field is not None:
            self._flat_field.check(shape)
        self._shape = shape
        self._say_region(shape)
        card = self._model.card
        self._free = SimpleQueue()
        for _ in range(self._work.workers):
            self._free.put(Preparation.of(card, shape, self._flat_field))

    def _say_region(self, shape: tuple[int, int]) -> None:
        """Say how images of another size than the calibrated field's are placed in it."""
        field = None if self._refiner is None else self._refiner.model.field
        if field is None or field.shape == shape:
            return
        log.warning(
            "images of %d x %d px are taken as the middle of the calibrated field of %d x %d px; crop the camera "
            "about its middle, or calibrate as you measure",
            *shape,
            *field.shape,
        )

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        """Take a frame; waits while twice as many frames as there are workers are pending."""
        frame = readable(frame, self._shape, READER)
        self._prepare(frame.image.shape)
        task = self._tasks.next(
            frame.info.frame,
            self.fit_share,
            self.fit_ms,
            is_compiled=self.fit_ready.is_set(),
            given=frame.info.decisions,
        )
        self._work.give(partial(self._carry_out, frame, task, predicted))

    def _carry_out(self, frame: Frame, task: FrameTask, predicted: Predictions | None) -> Outcome:
        try:
            outcome = self._detect(frame, task.allowed, predicted if task.may_predict else None, task)
        finally:
            self._tasks.finished(task)
        return task.signed(outcome[0]), outcome[1]

    def _detect(
        self,
        frame: Frame,
        allowed: Allowance = ALL,
        predicted: Predictions | None = None,
        task: FrameTask | None = None,
    ) -> Outcome:
        begun_s = time.perf_counter()
        compiles = task is not None and not task.may_predict
        preparation = self._free.get()
        try:
            background = preparation.fill(frame.image)
            if background <= 0:
                return Detections.empty(frame.info), Counter(no_light=1)
            if predicted is not None and self._prediction is not None:
                outcome = self._detect_expected(frame, allowed, predicted, preparation, background, begun_s)
                if outcome is not None:
                    return outcome
            planes = self._run(preparation.input, f"frame {frame.info.frame}")
            slots = slots_of(planes, self._model.card.learnt)
            found_s = time.perf_counter()
            refine = None
            if self._refiner is not None:
                refine = partial(self._refine, self._refiner, preparation, frame, allowed, compiles)
            found, left_out = detections_of(
                frame, slots, background, self._model.card, self._settings, refine, self._particle
            )
            ended_s = time.perf_counter()
            # while the fit is being compiled, nothing is left out for want of time
            reduced = 0 if compiles else int((found.flags > 0).sum())
            self._costs.append(
                FrameCost(
                    frame.info.frame,
                    1e3 * (found_s - begun_s),
                    1e3 * (ended_s - found_s),
                    len(found),
                    reduced,
                )
            )
            return found, left_out
        except BackEndError:
            raise
        except Exception as error:  # any error: the run ends with the frame's number
            what = f"{type(error).__name__}: {error}"
            raise DetectionError(f"frame {frame.info.frame} could not be processed ({what})") from error
        finally:
            self._free.put(preparation)

    def _detect_expected(
        self,
        frame: Frame,
        allowed: Allowance,
        predicted: Predictions,
        preparation: Preparation,
        background: float,
        begun_s: float,
    ) -> Outcome | None:
        """What `_detect` gives, with the help of predictions; None where the whole frame has to be searched."""
        assert self._prediction is not None
        left_out: Counter[str] = Counter()

        def read(parts: list[Rectangle]) -> Reading:
            given, what = preparation.input, f"frame {frame.info.frame}"
            slots, known, pixels = slots_in(
                lambda tile, at: self._run_part(tile, at, given.shape, what), given, parts, self._margin
            )
            found, doubts, beside, _ = tables_of(
                slots, frame, background, self._model.card, self._settings, self._particle
            )
            left_out.update(beside)
            return Reading(found, doubts, known, pixels)

        table = self._prediction.search(frame, *self._to_fit(preparation, frame), predicted, read, allowed)
        if table is None:
            return None
        found, beyond = in_sample(frame, table, self._model.card, self._settings, self._particle)
        left_out["too_many"] += beyond
        took_ms = 1e3 * (time.perf_counter() - begun_s)
        reduced = int((found.flags > 0).sum())
        self._costs.append(FrameCost(frame.info.frame, took_ms, 0.0, len(found), reduced))
        return found, left_out

    def _predicting(self, pixel_size_um: float) -> PredictedSearch | None:
        """The search with predictions, where fit and network are such that it is possible."""
        if self._particle is not None and self._particle.quantity is not None:
            return None  # places are predicted with depths, which these particles do not have
        margin = margin_blocks(self._model.card.size)
        if margin is None or not self._model.may_read_parts or type(self._refiner) is not Refiner:
            return None
        self._margin = margin
        return PredictedSearch(self._refiner, pixel_size_um, margin)

    def _to_fit(self, preparation: Preparation, frame: Frame) -> tuple[npt.NDArray[Any], float | None]:
        """The image that is fitted, and the grey values of full light where it is corrected by a flat field."""
        if self._flat_field is None:
            return frame.image, None
        return preparation.corrected, self._flat_field.grey_values

    def _run_part(
        self, given: npt.NDArray[np.float32], at: tuple[int, int], whole: tuple[int, ...], what: str
    ) -> npt.NDArray[np.float32]:
        """As `_run` for a part of an image, whose first pixel lies `at` x, y in the input of shape `whole`.

        ONNX Runtime reads it, whatever the back end: others compile a network for each size. The whole image
        is read as ever.
        """
        if given.shape == whole:
            return self._run(given, what)
        x, y = origin_px(self._model.card.field_shape, whole[2:])
        return self._run(given, what, partial(self._model, origin=(x + at[0], y + at[1])))

    def _run(
        self,
        given: npt.NDArray[np.float32],
        what: str,
        part: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]] | None = None,
    ) -> npt.NDArray[np.float32]:
        """The network's output for one image. Raises `BackEndError` where it fails or cannot be right.

        Parts of an image are read by `part`.
        """
        name = self._network.backend if part is None else self._model.backend
        try:
            answer: npt.NDArray[np.float32] = (part or self._network)(given)[0]
        except Exception as error:  # those of ONNX Runtime and the others have no common class but this one
            raise BackEndError(f"{name} failed at {what}: {' '.join(str(error).split())}") from error
        fault = fault_of(answer)
        if fault:
            raise WrongNumbersError(f"{name} gave {fault} for {what}")
        return answer

    def _refine(
        self,
        refiner: Refiner,
        preparation: Preparation,
        frame: Frame,
        allowed: Allowance,
        compiles: bool,
        table: npt.NDArray[Any],
        doubts: npt.NDArray[Any],
    ) -> npt.NDArray[Any]:
        if allowed.is_none:
            return refiner.reduce(table, frame.image.shape, compiles=compiles, notes=allowed.notes)
        image, full_light = self._to_fit(preparation, frame)
        return refiner.refine(image, table, full_light, doubts, allowed, frame.info.frame)

    def allow_fit(self, share: float, ms: float) -> None:
        """Set `fit_share` and `fit_ms` for the frames submitted from now on."""
        self.fit_share, self.fit_ms = share, ms

    def costs(self) -> list[FrameCost]:
        """What the frames cost that were finished since the last call, the last `COSTS_KEPT` at most."""
        found = []
        while self._costs:
            found.append(self._costs.popleft())
        return found

    def announce(self, call: Callable[[], None]) -> bool:
        """Have `call` called, from any thread, when there may be results. Returns True."""
        self._work.announce(call)
        return True

    def results(self, timeout_s: float) -> list[Detections]:
        """Return what is ready, in order; waits up to `timeout_s` for the first."""
        if self._fit_beside is not None:
            self._fit_beside.poll()
        return self._work.results(timeout_s)

    def close(self) -> None:
        """Finish the pending frames and stop the threads. Idempotent."""
        self._work.close()
        if self._fit_beside is not None:
            self._fit_beside.close()
