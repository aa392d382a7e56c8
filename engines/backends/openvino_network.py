"""A network run by OpenVINO, on the processor (a thread for each frame in progress) or on an Intel GPU."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.backends.openvino_devices import PROCESSOR, found_devices, gpu_named
from engines.backends.quantised import read_quantised, why_not_quantised
from engines.cuda.check import EXACT, HALF, compared, drawn_frame, reference_answer
from engines.cuda.layout import FrameFormat
from engines.engine import BackEndError, WrongNumbersError
from engines.network.decode import decode
from engines.network.model import LONGEST_RUN_S, Network, OnnxModel
from engines.network.preparation import Preparation
from engines.settings import DetectorSettings

log = logging.getLogger(__name__)

CHECK_PX = 128
"""px, side of the image on which OpenVINO is compared with ONNX Runtime."""
AGREEMENT = 2e-3
"""Largest difference allowed in any value of the maps in single precision: far above rounding."""
LEAST_CORRELATION = 0.9
"""Of all values in 8 bits, to find saturated products; the accuracy itself is judged when a model is quantised."""
GPU_STREAMS = 2
"""Images on a GPU at a time: one is copied there while another is processed. More would only add latency."""
HINTS = {"float16": "f16", "bfloat16": "bf16"}
"""OpenVINO's names of precisions; all others are calculated in single precision, unless the graph says another."""
GPU_CHECK_PX = (384, 512)
"""px, size of the drawn frame on which a GPU is compared with ONNX Runtime: 20 particles."""


def open_openvino(settings: DetectorSettings, path: Path, model: OnnxModel, workers: int) -> OpenVinoNetwork:
    """Open the model file `path`, in 8 bits if it was quantised and the settings allow it.

    Where the settings ask for a GPU it runs there, in half precision unless they ask for full.
    Raises `BackEndError` where OpenVINO cannot run it, `WrongNumbersError` where it runs it wrongly.
    """
    if settings.device.startswith("gpu"):
        return _open_on_gpu(settings, path, model)
    reduced = settings.precision != "full" and not why_not_quantised(path)
    stored = read_quantised(path) if reduced else None
    if stored is not None:
        core, graph = open_graph(stored.graph, stored.weights)
        made_on, here = stored.facts.get("processor"), processor_of(core)
        if made_on != here:
            why = f"the 8-bit form of {path.name} was measured on {made_on}, not on {here}; quantise it here"
            if settings.precision == "reduced":
                raise BackEndError(why)
            log.warning("%s; it runs in single precision until it has been quantised here", why)
            stored = None
    if stored is None:
        core, graph = open_graph(path)
    network = OpenVinoNetwork(core, graph, workers, "int8" if stored is not None else "float32")
    _check(network, model)
    return network


def _open_on_gpu(settings: DetectorSettings, path: Path, model: OnnxModel) -> OpenVinoNetwork:
    core, graph = open_graph(path)
    devices = found_devices(core)
    name = gpu_named(settings.device, devices)
    precision = "float32" if settings.precision == "full" else "float16"
    network = OpenVinoNetwork(core, graph, GPU_STREAMS, precision, name)
    network.device = devices[name]
    check_drawn(network, model)
    return network


def processor_of(core: Any) -> str:
    """The processor's name, as OpenVINO has it: 8-bit products are exact on some and saturate on others."""
    return str(core.get_property(PROCESSOR, "FULL_DEVICE_NAME"))


def open_graph(graph: Path | str, weights: npt.NDArray[np.uint8] | None = None) -> tuple[Any, Any]:
    """OpenVINO's core and its model of a file, or of its own XML and weights. Raises `BackEndError`."""
    try:
        import openvino

        core = openvino.Core()
        return core, core.read_model(graph, *([] if weights is None else [openvino.Tensor(weights)]))
    except (ImportError, OSError, RuntimeError) as error:
        name = graph.name if isinstance(graph, Path) else "the quantised model"
        raise BackEndError(f"openvino cannot open {name}: {' '.join(str(error).split())}") from error


class OpenVinoNetwork:
    """A network that gives what `OnnxModel` gives; any thread may call, and owns the result until its next call.

    It is compiled for one size of image at a time, which makes it up to a tenth faster. `graph` is an
    `openvino.Model` whose input may have any size; `streams` is how many images are processed at a time, `target`
    OpenVINO's name of the device.
    """

    backend = "openvino"

    def __init__(self, core: Any, graph: Any, streams: int, precision: str, target: str = PROCESSOR) -> None:
        self.device = target.lower()
        self.precision = precision
        self._core, self._graph, self._target = core, graph, target
        # by default OpenVINO would use bfloat16 on processors that have it, and half precision on GPUs
        self._options: dict[str, Any] = {
            "NUM_STREAMS": streams,
            "INFERENCE_PRECISION_HINT": HINTS.get(precision, "f32"),
        }
        if target == PROCESSOR:
            self._options |= {"INFERENCE_NUM_THREADS": streams, "ENABLE_CPU_PINNING": False}
        self._lock = threading.Lock()
        self._shape: tuple[int, ...] = ()
        self._compiled: Any = None
        self._own = threading.local()

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map (1, 1, H, W), H and W multiples of 16, to planes (1, slots x values, H/4, W/4), float32."""
        import openvino

        request = self._request(images.shape)
        request.set_input_tensor(openvino.Tensor(images, shared_memory=True))
        request.start_async()
        if not request.wait_for(round(1e3 * LONGEST_RUN_S)):
            request.cancel()
            size = f"{images.shape[-2]} x {images.shape[-1]}"
            raise BackEndError(
                f"openvino was stopped after {LONGEST_RUN_S:g} s on one image of {size} pixels; use a smaller model"
            )
        answer: npt.NDArray[np.float32] = request.get_output_tensor(0).data
        return answer

    def _request(self, shape: tuple[int, ...]) -> Any:
        if getattr(self._own, "shape", None) != shape:
            with self._lock:
                if self._shape != shape:
                    sized = self._graph.clone()
                    sized.reshape(list(shape))
                    self._compiled = self._core.compile_model(sized, self._target, self._options)
                    self._shape = shape
                self._own.request, self._own.shape = self._compiled.create_infer_request(), shape
        return self._own.request


def check_drawn(network: Network, model: OnnxModel) -> None:
    """Compare a network on a GPU with ONNX Runtime on a drawn frame, as those on NVIDIA's GPUs are.

    Raises `WrongNumbersError` where they differ by more than half (or single) precision allows, `BackEndError`
    where it cannot run.
    """
    card = model.card
    frame = FrameFormat.of(GPU_CHECK_PX, np.dtype(np.uint8), False, 1, card.kinds)
    image = drawn_frame(card, model.psf(), frame, None)
    reference = reference_answer(model, image)
    preparation = Preparation.of(card, GPU_CHECK_PX, None)
    preparation.fill(image)
    try:
        maps = network(preparation.input)[0]
    except RuntimeError as error:
        raise BackEndError(
            f"openvino cannot run this model on {network.device}: {' '.join(str(error).split())}"
        ) from error
    found = compared(reference, decode(maps, card.learnt), maps, card)
    if not found.within(HALF if network.precision == "float16" else EXACT):
        raise WrongNumbersError(
            f"openvino on {network.device} disagrees with onnxruntime on a drawn frame: {found}"
        )


def _check(network: OpenVinoNetwork, model: OnnxModel) -> None:
    """Raise unless the network agrees with ONNX Runtime, within what 8 bits allow where it is quantised."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((1, 1, CHECK_PX, CHECK_PX)).astype(np.float32)
    images[:, :, 40:60, 40:50] += 5.0
    try:
        ours, theirs = network(images), model(images)
    except RuntimeError as error:
        raise BackEndError(f"openvino cannot run this model: {' '.join(str(error).split())}") from error
    if network.precision == "int8":
        correlation = float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1])
        if not correlation > LEAST_CORRELATION:
            raise WrongNumbersError(
                f"openvino in 8 bits disagrees with onnxruntime (correlation {correlation:.2f}) on this processor; "
                'quantise the model again, or set detector.precision to "full"'
            )
        return
    difference = float(np.abs(ours - theirs).max())
    if not difference < AGREEMENT:
        raise WrongNumbersError(
            f"openvino differs from onnxruntime by {difference:.2g} on this processor (allowed: {AGREEMENT:g})"
        )
