"""The network on a GPU as an `Engine`: three frames in flight there, decoding and fit in threads here."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engines.cuda.check import EXACT, HALF, Agreement, check_fit, check_slot, drawn_frame, reference_answer
from engines.cuda.device import Device
from engines.cuda.fit.frame import FRAMES_AT_A_TIME, KernelFit
from engines.cuda.layout import FrameFormat
from engines.cuda.ranges import MOST_LIGHT
from engines.cuda.slot import SLOTS_IN_FLIGHT, Runner, Slot
from engines.cuda.unpacking import kept_slots
from engines.detection_pool import FrameWork, Outcome
from engines.engine import BackEndError, DetectionError, EngineInfo, images_only, readable, working_dtype
from engines.flatfield import FlatField, load_flat_field
from engines.network.decode import slots_of
from engines.network.model import OnnxModel
from engines.network.postprocessing import check_fits, detections_of, to_table
from engines.network.preparation import LEAST_LIGHT
from engines.ordered_threads import default_workers
from engines.refine.kinds import open_kinds_refiner
from engines.refine.refiner import NETWORK_SEARCH_UM, Refiner, open_refiner
from engines.settings import DetectorSettings
from stream.errors import ConfigurationError
from stream.messages import Detections, Frame, Predictions

log = logging.getLogger(__name__)


class GpuBackEnd(Protocol):
    """What runs a network on a device: torch or TensorRT."""

    name: str
    half: bool

    @property
    def device(self) -> Device:
        """Where it runs."""
        ...

    def runner(
        self, path: Path, model: OnnxModel, frame: FrameFormat, flat_field: FlatField | None
    ) -> Runner:
        """The network for such frames. Raises `ConfigurationError` or `BackEndError` where it cannot run."""
        ...


class GpuEngine:
    """Finds particles and their depths with a trained network on a GPU.

    Before the first frame of a format its result for a drawn frame is compared with that of ONNX Runtime.
    With `closes_device` the back end's device ends with the engine.
    Raises `ConfigurationError` for a model that cannot be read or was made for other images.
    """

    def __init__(
        self,
        settings: DetectorSettings,
        pixel_size_um: float,
        model: Path,
        back_end: GpuBackEnd,
        *,
        closes_device: bool = False,
    ) -> None:
        from engines.file_hash import file_hash

        self._settings, self._back_end, self._closes_device = settings, back_end, closes_device
        self._model = OnnxModel(model)
        self._path, self._hash = model, file_hash(model)
        self._card = self._model.card
        check_fits(self._card, settings, pixel_size_um, model)
        self._particle = self._model.psf()
        self._refiner = open_refiner(self._particle, settings, pixel_size_um, NETWORK_SEARCH_UM)
        if self._refiner is not None and self._card.kinds > 1:
            models = [self._model.psf(kind) for kind in range(self._card.kinds)]
            self._refiner = open_kinds_refiner(models, pixel_size_um, NETWORK_SEARCH_UM)
        self._flat_field = (
            None if settings.bright is None else load_flat_field(settings.bright, settings.dark)
        )
        self._frame: FrameFormat | None = None
        self._runner: Runner | None = None
        self._slots: list[Slot] = []
        self._free: SimpleQueue[Slot] = SimpleQueue()
        self._agreement: Agreement | None = None
        self._fit_on = "processor"
        self._kernel_fit: KernelFit | None = None
        self._work = FrameWork(settings.workers or default_workers(), "gpu")

    @property
    def info(self) -> EngineInfo:
        """What this engine is; `details["agreement"]` compares it with ONNX Runtime."""
        card, facts = self._card, self._back_end.device.facts
        details: dict[str, Any] = card.facts | {
            "workers": self._work.workers,
            "refine": False if self._refiner is None else self._refiner.counts(),
            "fit_on": self._fit_on,
            "precision": "float16" if self._back_end.half else "float32",
            "frames_in_flight": SLOTS_IN_FLIGHT,
            "agreement": "" if self._agreement is None else str(self._agreement),
        }
        name = self._back_end.name
        return EngineInfo("network", name, facts.name, str(self._path), self._hash, True, details)

    @property
    def pending(self) -> int:
        """Frames submitted whose detections have not been returned yet."""
        return len(self._work)

    def counts(self) -> dict[str, int]:
        """Totals so far: particles left out, frames without light (`no_light`), frames read in full (`crowded`)."""
        return dict(self._work.left_out)

    def warmup(self, height: int, width: int, dtype: np.dtype[Any], depth: int = 1) -> None:
        """Allocate, record and check for images of this size and type."""
        images_only(depth, "the network")
        dtype = working_dtype(dtype)
        self._prepare((height, width), dtype)
        if self._refiner is not None:
            self._refiner.warmup(height, width)
            if self._card.kinds == 1:  # the GPU's fit has one PSF model
                self._choose_fit(self._refiner, (height, width), dtype)

    def _choose_fit(self, refiner: Refiner, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        """Fit on the GPU if more frames can be fitted there than on the processor, whose threads share the rest."""
        frame = FrameFormat.of(shape, dtype, False, self._settings.max_particles, self._card.kinds)
        image = drawn_frame(self._card, self._particle, frame, None)
        found = reference_answer(self._model, image)
        table = to_table(found.particles, self._card, found.background, self._particle)
        took_s: dict[str, float] = {}
        tables: dict[str, npt.NDArray[Any]] = {}
        on_gpu: KernelFit | None = None
        try:
            on_gpu = KernelFit(refiner.model, self._back_end.device)
            for name, fit in (("processor", refiner.fit_all), ("gpu", on_gpu)):
                trial = Refiner(refiner.model, self._card.pixel_size_um, NETWORK_SEARCH_UM)
                trial.fit_all = fit
                for _ in range(2):  # the first compiles
                    busy_s, begun_s = on_gpu.busy_s, time.perf_counter()
                    tables[name] = trial.refine(image, table)
                    took_s[name] = time.perf_counter() - begun_s
                    took_s["kernel"] = on_gpu.busy_s - busy_s
            check_fit(tables["processor"], tables["gpu"])
        except (BackEndError, RuntimeError, MemoryError) as error:
            log.warning("the fit stays on the processor: %s", _line(error))
            if on_gpu is not None:
                on_gpu.close()
            return
        workers = self._work.workers
        if max(took_s["gpu"] / workers, took_s["kernel"] / FRAMES_AT_A_TIME) < took_s["processor"] / workers:
            refiner.fit_all = self._kernel_fit = on_gpu
            self._fit_on = "gpu"
        else:
            on_gpu.close()
        log.info("the fit is done on the %s: %s", self._fit_on, took_s)

    def _prepare(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        flat_field = self._flat_field is not None
        most, kinds = self._settings.max_particles, self._card.kinds
        frame = FrameFormat.of(shape, dtype, flat_field, most, kinds)
        if frame == self._frame:
            return
        if self._flat_field is not None:
            self._flat_field.check(shape)
        image = drawn_frame(self._card, self._particle, frame, self._flat_field)
        reference = reference_answer(self._model, image, self._flat_field)
        limit = HALF if self._back_end.half else EXACT
        try:
            runner = self._back_end.runner(self._path, self._model, frame, self._flat_field)
            self._runner, self._slots = runner, []  # frames of another format may still be in the old ones
            for _ in range(SLOTS_IN_FLIGHT):
                self._slots.append(Slot(self._back_end.device, runner))
            for slot in self._slots:
                slot.fill(image)
            for slot in self._slots:
                self._agreement = check_slot(slot, reference, self._card, limit)
        except (BackEndError, ConfigurationError):
            raise
        except (RuntimeError, MemoryError, TypeError) as error:  # torch has no class for the device's alone
            raise BackEndError(f"{self._back_end.name} could not be started: {_line(error)}") from error
        self._frame = frame
        self._free = SimpleQueue()
        for slot in self._slots:
            self._free.put(slot)

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        """Take a frame; waits while three are on the GPU or enough are pending in the threads."""
        known = () if self._frame is None else (self._frame.height, self._frame.width)
        frame = readable(frame, known, "the network")
        self._prepare(frame.image.shape, frame.image.dtype)
        free = self._free
        slot = free.get()
        try:
            slot.fill(frame.image)
        except (RuntimeError, MemoryError) as error:
            free.put(slot)
            raise self._failed(frame, error) from error
        self._work.give(partial(self._finish, frame, slot, free))

    def _finish(self, frame: Frame, slot: Slot, free: SimpleQueue[Slot]) -> Outcome:
        try:
            answer = slot.answer()
            full_light = 1.0 if self._flat_field is None else self._flat_field.grey_values
            background = answer.background * full_light
            if background < LEAST_LIGHT:
                return Detections.empty(frame.info), Counter(no_light=1)
            if self._flat_field is not None and answer.background >= MOST_LIGHT - 1:
                raise DetectionError(
                    f"frame {frame.info.frame} is at least {MOST_LIGHT - 1:g} times as bright as the bright "
                    "reference; take a new reference"
                )
            answer.check()
            slots = kept_slots(answer, slot.frame) if answer.complete else slots_of(slot.maps())
            crowded = not answer.complete
        except BackEndError as error:
            raise type(error)(f"frame {frame.info.frame}: {error}") from error
        except (RuntimeError, MemoryError) as error:
            raise self._failed(frame, error) from error
        finally:
            free.put(slot)
        refine = None if self._refiner is None else partial(self._refine, self._refiner, frame)
        try:
            found, left_out = detections_of(
                frame, slots, background, self._card, self._settings, refine, self._particle
            )
        except RuntimeError as error:  # the fit may be on the GPU
            raise self._failed(frame, error) from error
        except Exception as error:  # any error: the run ends with the frame's number
            what = f"{type(error).__name__}: {error}"
            raise DetectionError(f"frame {frame.info.frame} could not be processed ({what})") from error
        return found, left_out + Counter(crowded=int(crowded))

    def _refine(
        self, refiner: Refiner, frame: Frame, table: npt.NDArray[Any], doubts: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        if self._flat_field is None:
            return refiner.refine(frame.image, table, proposals=doubts)
        corrected = np.empty(frame.image.shape, np.float32)
        self._flat_field.correct(frame.image, corrected)
        return refiner.refine(corrected, table, self._flat_field.grey_values, doubts)

    def _failed(self, frame: Frame, error: BaseException) -> BackEndError:
        name = f"{self._back_end.name} on {self._back_end.device.facts.name}"
        return BackEndError(f"{name} failed at frame {frame.info.frame}: {_line(error)}")

    def announce(self, call: Callable[[], None]) -> bool:
        """Have `call` called, from any thread, when there may be results. Returns True."""
        self._work.announce(call)
        return True

    def results(self, timeout_s: float) -> list[Detections]:
        """Return what is ready, in order; waits up to `timeout_s` for the first."""
        return self._work.results(timeout_s)

    def close(self) -> None:
        """Finish the pending frames, stop the threads and free the GPU's memory. Idempotent."""
        self._work.close()
        slots, self._slots, self._free, self._frame = self._slots, [], SimpleQueue(), None
        for slot in slots:
            slot.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()
        if self._kernel_fit is not None:
            self._kernel_fit.close()
        if self._closes_device:
            self._back_end.device.close()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
