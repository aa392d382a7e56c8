"""The back ends that can run a volume network, the fastest first, each checked against ONNX Runtime when opened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from engines.backends.registry import missing
from engines.engine import BackEndError
from engines.network.model import Network
from engines.settings import DetectorSettings
from engines.volumes.network.agreement import check_agreement
from engines.volumes.network.model import VolumeOnnxModel
from stream.errors import ConfigurationError

log = logging.getLogger(__name__)

Opener = Callable[[], Network]
IMAGES_ONLY = "runs networks for single images only"


@dataclass(frozen=True, slots=True)
class Running:
    """What runs a network, and why each back end before it does not."""

    network: Network
    skipped: dict[str, str] = field(default_factory=dict)


def open_running(settings: DetectorSettings, model: VolumeOnnxModel, workers: int) -> Running:
    """Open the first back end that the settings allow and that can run `model` here, `workers` volumes at a time.

    Raises `ConfigurationError` where none can.
    """
    skipped: dict[str, str] = {}
    for name, device, why_not, opener in _candidates(settings, model, workers):
        if settings.backend not in ("auto", name) or settings.device.partition(".")[0] not in (
            "auto",
            device,
        ):
            continue
        reason = why_not
        if not reason:
            try:
                network = opener()
                if network is not model:
                    check_agreement(network, model)
                return Running(network, skipped)
            except BackEndError as error:
                reason = str(error)
        skipped[f"{name} ({device})"] = reason
        log.info("%s (%s) is not used: %s", name, device, reason)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items()) or "no such back end"
    raise ConfigurationError(
        f'detector.backend "{settings.backend}" cannot run {model.path.name} here ({reasons}); set it to "auto"'
    )


def _candidates(
    settings: DetectorSettings, model: VolumeOnnxModel, workers: int
) -> Iterator[tuple[str, str, str, Opener]]:
    """Name, device, why it cannot run here, and what opens it."""
    named = settings.backend != "auto"
    if named:
        yield "tensorrt", "gpu", IMAGES_ONLY, lambda: model
    if named or settings.device != "cpu":
        yield (
            "torch",
            "gpu",
            _no_torch_on_gpu(),
            lambda: _torch(model, "cuda", half=settings.precision != "full"),
        )
    # in single precision ONNX Runtime is faster: 125 and 156 ms for 512 x 512 x 10 voxels; in bfloat16 94 ms
    reason = missing("openvino", extra="openvino")
    half = False if reason else settings.precision != "full" and _multiplies_in_half()
    if not (half or reason or named):
        reason = "slower than onnxruntime where it cannot calculate in bfloat16"
    if not (half or reason) and settings.precision == "reduced":
        reason = "this processor does not multiply in bfloat16"
    yield "openvino", "cpu", reason, lambda: _openvino(model, workers, half=half)
    if named:
        yield "openvino", "gpu", IMAGES_ONLY, lambda: model
    single = "runs in single precision only" if settings.precision == "reduced" else ""
    yield "onnxruntime", "cpu", single, lambda: model
    if named:
        yield (
            "torch",
            "cpu",
            missing("torch", extra="train") or single,
            lambda: _torch(model, "cpu", half=False),
        )


def _no_torch_on_gpu() -> str:
    from engines.cuda.with_torch.device import why_no_torch_cuda

    return why_no_torch_cuda()


def _torch(model: VolumeOnnxModel, device: str, *, half: bool) -> Network:
    from engines.volumes.network.torch_network import TorchVolumeNetwork

    return TorchVolumeNetwork(model, device, half=half)


def _multiplies_in_half() -> bool:
    try:
        import openvino

        return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except (ImportError, OSError, RuntimeError):
        return False


def _openvino(model: VolumeOnnxModel, workers: int, *, half: bool) -> Network:
    from engines.backends.openvino_network import OpenVinoNetwork, open_graph

    core, graph = open_graph(model.path)
    return OpenVinoNetwork(core, graph, workers, "bfloat16" if half else "float32")
