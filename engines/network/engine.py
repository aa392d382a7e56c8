"""The network as an `Engine`: one frame a thread, frames in parallel, results in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.backends.soundness import fault_of
from engines.engine import BackEndError, DetectionError, EngineInfo, WrongNumbersError, image_shape
from engines.flatfield import load_flat_field
from engines.network.card import ModelCard
from engines.network.decode import decode
from engines.network.model import Network, OnnxModel
from engines.network.preparation import Preparation
from engines.ordered import OrderedWork, default_workers
from engines.refine.refiner import NETWORK_SEARCH_UM, open_refiner
from engines.settings import DetectorSettings
from stream.errors import ConfigurationError
from stream.messages import Detections, Frame

PIXEL_SIZE_TOLERANCE = 0.05
SIGNS = {"bright": 1.0, "dark": -1.0}
CLASSICAL_ONLY = ("diameter_px", "threshold")


def to_table(found: npt.NDArray[np.float64], card: ModelCard, background_grey: float) -> npt.NDArray[Any]:
    """The table (8, N) of `Detections` for decoded particles (N, 8), columns `decode.ROW`."""
    x, y, z, brightness, sigma_x, sigma_y, sigma_z, confidence = found.T
    pixel, depth, scale = card.pixel_size_um, card.half_range_um, card.sigma_scale
    return np.ascontiguousarray(
        [
            x * pixel,
            y * pixel,
            card.middle_um + z * depth,
            sigma_x * pixel * scale[0],
            sigma_y * pixel * scale[1],
            sigma_z * depth * scale[2],
            np.maximum(brightness, 0.0) * card.peak_contrast * background_grey,
            confidence,
        ]
    )


class NetworkEngine:
    """Finds particles and their depths with a trained network, on the processor's cores.

    `open_network` gives what runs the network in place of ONNX Runtime; it is told of the model and how many
    frames are worked on at a time. Raises `ConfigurationError` for a model that cannot be read or was made for
    other images, and what `open_network` raises.
    """

    def __init__(
        self,
        settings: DetectorSettings,
        pixel_size_um: float,
        model: Path,
        open_network: Callable[[OnnxModel, int], Network] | None = None,
    ) -> None:
        from engines.classical.widths import file_hash

        self._settings = settings
        self._model = OnnxModel(model)
        self._path, self._hash = model, file_hash(model)
        card = self._model.card
        if abs(pixel_size_um / card.pixel_size_um - 1) > PIXEL_SIZE_TOLERANCE:
            raise ConfigurationError(
                f"{model} was trained for {card.pixel_size_um:g} um a pixel, but the images have "
                f"{pixel_size_um:g}: calibrate and train with this camera and lens"
            )
        if settings.polarity not in ("auto", card.polarity):
            raise ConfigurationError(
                f"{model} was trained for {card.polarity} particles, not {settings.polarity} ones; "
                'set detector.polarity to "auto"'
            )
        for name in CLASSICAL_ONLY:
            if getattr(settings, name) is not None:
                raise ConfigurationError(
                    f"detector.{name} is for the classical detector; leave it out with {model}"
                )
        self._refiner = open_refiner(
            self._model.particle() if settings.refine else None, settings, pixel_size_um, NETWORK_SEARCH_UM
        )
        bright = settings.bright
        self._flat_field = None if bright is None else load_flat_field(bright, settings.dark)
        self._shape: tuple[int, ...] = ()
        self._free: SimpleQueue[Preparation] = SimpleQueue()
        workers = settings.workers or default_workers()
        self._network: Network = self._model if open_network is None else open_network(self._model, workers)
        self._work: OrderedWork[tuple[Detections, Counter[str]]] = OrderedWork(workers, "network")
        self._left_out: Counter[str] = Counter()

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        card = self._model.card
        details: dict[str, Any] = {
            "polarity": card.polarity,
            "workers": self._work.workers,
            "precision": self._network.precision,
            "z_um": list(card.z_range_um),
            "size": card.size,
            "scores": card.scores,
            "refine": False if self._refiner is None else self._refiner.counts(),
        }
        network = self._network
        return EngineInfo(
            "network", network.backend, network.device, str(self._path), self._hash, True, details
        )

    @property
    def pending(self) -> int:
        """Frames submitted whose detections have not been returned yet."""
        return len(self._work)

    def counts(self) -> dict[str, int]:
        """What was left out so far: particles by reason, and frames without light as `no_light`."""
        return dict(self._left_out)

    def warmup(self, height: int, width: int, dtype: np.dtype[Any]) -> None:
        """Compile for, and allocate, images of this size and type."""
        self._prepare((height, width))
        image = np.full((height, width), np.iinfo(dtype).max // 2, dtype)
        for preparation in [self._free.get() for _ in range(self._work.workers)]:
            preparation.fill(image)
            maps = self._run(preparation.input, "the first image")
            self._free.put(preparation)
        # a few slots that are particles, so that nothing of the decoding is left to compile
        decode(np.ones_like(maps[..., :4, :4] if maps.ndim == 3 else maps[:4, :4], order="C"))
        if self._refiner is not None:
            self._refiner.warmup(height, width)

    def _prepare(self, shape: tuple[int, int]) -> None:
        if shape == self._shape:
            return
        if self._flat_field is not None:
            self._flat_field.check(shape)
        self._shape = shape
        card = self._model.card
        self._free = SimpleQueue()
        for _ in range(self._work.workers):
            self._free.put(Preparation(shape, SIGNS[card.polarity], card.noise_contrast, self._flat_field))

    def submit(self, frame: Frame) -> None:
        """Take a frame; waits while twice as many frames as there are workers are pending."""
        self._prepare(image_shape(frame, self._shape, "the network"))
        self._work.give(partial(self._detect, frame))

    def _detect(self, frame: Frame) -> tuple[Detections, Counter[str]]:
        preparation = self._free.get()
        try:
            background = preparation.fill(frame.image)
            if background <= 0:
                return Detections.empty(frame.info), Counter(no_light=1)
            found = decode(self._run(preparation.input, f"frame {frame.info.frame}"))
            found, left_out = self._chosen(found)
            table = to_table(found, self._model.card, background)
            table = self._refine(preparation, frame.image, table)
        except BackEndError:
            raise
        except Exception as error:
            raise DetectionError(f"frame {frame.info.frame} could not be worked on: {error}") from error
        finally:
            self._free.put(preparation)
        return Detections(frame.info, table), left_out

    def _run(self, given: npt.NDArray[np.float32], what: str) -> npt.NDArray[np.float32]:
        """The network's answer to one image. Raises `BackEndError` where it fails or cannot be right."""
        name = self._network.backend
        try:
            answer: npt.NDArray[np.float32] = self._network(given)[0]
        except Exception as error:  # those of ONNX Runtime and the others have no common class but this one
            raise BackEndError(f"{name} failed at {what}: {' '.join(str(error).split())}") from error
        fault = fault_of(answer)
        if fault:
            raise WrongNumbersError(f"{name} answered {what} with {fault}")
        return answer

    def _refine(
        self, preparation: Preparation, image: npt.NDArray[Any], table: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        if self._refiner is None:
            return table
        if self._flat_field is None:
            return self._refiner.refine(image, table)
        return self._refiner.refine(preparation.corrected, table, self._flat_field.grey_values)

    def _chosen(self, found: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], Counter[str]]:
        """The decoded particles (N, 8) that count, and how many do not, by reason."""
        height, width = self._shape
        x, y = found[:, 0], found[:, 1]
        inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
        doubtful = inside & (found[:, -1] < self._settings.min_confidence)
        left_out = Counter(outside=int((~inside).sum()), doubtful=int(doubtful.sum()))
        found = found[inside & ~doubtful]
        most = self._settings.max_particles
        if len(found) > most:
            left_out["too_many"] = len(found) - most
            found = found[np.sort(np.argsort(-found[:, 3], kind="stable")[:most])]
        return found, left_out

    def results(self, timeout_s: float) -> list[Detections]:
        """Return what is ready, in order; waits up to `timeout_s` for the first."""
        ready = []
        for detections, left_out in self._work.take(timeout_s):
            self._left_out += left_out
            ready.append(detections)
        return ready

    def close(self) -> None:
        """Wait for the frames at hand and stop the threads. Idempotent."""
        self._work.close()
