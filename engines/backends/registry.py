"""List of the back ends that can run a network, the fastest first, each with a check whether it can run here.

Nothing of a back end is imported before it is checked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engines.engine import BackEndError, Engine
from engines.settings import BackEndName, DetectorSettings
from stream.errors import ConfigurationError

if TYPE_CHECKING:
    from engines.cuda.engine import GpuBackEnd

log = logging.getLogger(__name__)

Say = Callable[[str], None]
WhyNot = Callable[[DetectorSettings, Path], str]


class Open(Protocol):
    """Opens an engine for images of a pixel size and a model; `say` reports what takes long."""

    def __call__(
        self, settings: DetectorSettings, pixel_size_um: float, model: Path, say: Say = log.info, /
    ) -> Engine:
        """Raise `ConfigurationError` for an unusable model, `BackEndError` where this back end fails."""
        ...


@dataclass(frozen=True, slots=True)
class BackEnd:
    """One way to run networks.

    `why_not(settings, model)` says in a few words why it cannot run that model here and what to do, "" where it
    can. `open(settings, pixel_size_um, model, say)` opens its engine; it raises `ConfigurationError` for a model
    that no back end can use, `BackEndError` where only this one fails. One that is not `automatic` runs only when
    the settings name it; one with `device_is_named` only when they name its device as well.
    """

    name: BackEndName
    device: str
    why_not: WhyNot
    open: Open
    automatic: bool = True
    device_is_named: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.device})"


@dataclass(frozen=True, slots=True)
class Opened:
    """The engine, the back end that was chosen, and why each one before it was not."""

    engine: Engine
    back_end: BackEnd
    skipped: dict[str, str] = field(default_factory=dict)


def missing(*libraries: str, extra: str) -> str:
    """Which of `libraries` are not installed and how to get them; "" where all are. Imports none of them."""
    absent = [name for name in libraries if find_spec(name) is None]
    if not absent:
        return ""
    return f'{" and ".join(absent)} not installed: pip install "liveptv[{extra}]"'


def _onnxruntime(settings: DetectorSettings, _model: Path) -> str:
    return "runs in single precision only" if settings.precision == "reduced" else ""


def _open_onnxruntime(
    settings: DetectorSettings, pixel_size_um: float, model: Path, _say: Say = log.info
) -> Engine:
    from engines.network.engine import NetworkEngine

    return NetworkEngine(settings, pixel_size_um, model)


def _openvino(settings: DetectorSettings, model: Path) -> str:
    reason = missing("openvino", extra="openvino")
    if not reason and settings.precision == "reduced":
        from engines.backends.quantised import why_not_quantised

        reason = why_not_quantised(model)
    return reason


def _open_openvino(
    settings: DetectorSettings, pixel_size_um: float, model: Path, _say: Say = log.info
) -> Engine:
    from engines.backends.openvino_network import open_openvino
    from engines.network.engine import NetworkEngine

    return NetworkEngine(settings, pixel_size_um, model, partial(open_openvino, settings, model))


def _openvino_on_gpu(settings: DetectorSettings, _model: Path) -> str:
    reason = missing("openvino", extra="openvino")
    if not reason:
        from engines.backends.openvino_devices import why_no_gpu

        reason = why_no_gpu(settings.device)
    return reason


def _processor_only(model: Path) -> str:
    """Why a GPU's program cannot run a network; "" where it can."""
    from engines.network.model import OnnxModel

    return OnnxModel(model).card.processor_only


def _tensorrt(_settings: DetectorSettings, model: Path) -> str:
    from engines.tensorrt.library import why_cannot_run

    reason = why_cannot_run()
    if not reason:
        from engines.tensorrt.opening import why_no_engine

        reason = why_no_engine(model) or _processor_only(model)
    return reason


def _open_tensorrt(
    settings: DetectorSettings, pixel_size_um: float, model: Path, say: Say = log.info
) -> Engine:
    from engines.tensorrt.opening import open_tensorrt

    half = settings.precision != "full"
    return _on_gpu(settings, pixel_size_um, model, open_tensorrt(half=half, say=say))


def _torch_on_gpu(_settings: DetectorSettings, model: Path) -> str:
    from engines.cuda.with_torch.device import why_no_torch_cuda

    return why_no_torch_cuda() or _processor_only(model)


def _open_torch_on_gpu(
    settings: DetectorSettings, pixel_size_um: float, model: Path, _say: Say = log.info
) -> Engine:
    from engines.cuda.with_torch.device import open_torch_cuda
    from engines.cuda.with_torch.runner import TorchBackEnd

    half = settings.precision != "full"
    return _on_gpu(settings, pixel_size_um, model, TorchBackEnd(open_torch_cuda(), half=half))


def _on_gpu(settings: DetectorSettings, pixel_size_um: float, model: Path, back_end: GpuBackEnd) -> Engine:
    from engines.cuda.engine import GpuEngine

    try:
        return GpuEngine(settings, pixel_size_um, model, back_end, closes_device=True)
    except BaseException:
        back_end.device.close()
        raise


def _torch(settings: DetectorSettings, model: Path) -> str:
    return missing("torch", extra="train") or _onnxruntime(settings, model)


def _open_torch(
    settings: DetectorSettings, pixel_size_um: float, model: Path, _say: Say = log.info
) -> Engine:
    from engines.network.engine import NetworkEngine
    from engines.network.torch_model import TorchModel

    return NetworkEngine(settings, pixel_size_um, model, lambda opened, _workers: TorchModel(model, opened))


ONNXRUNTIME = BackEnd("onnxruntime", "cpu", _onnxruntime, _open_onnxruntime)
BACK_ENDS: tuple[BackEnd, ...] = (
    BackEnd("tensorrt", "gpu", _tensorrt, _open_tensorrt),
    BackEnd("torch", "gpu", _torch_on_gpu, _open_torch_on_gpu),
    BackEnd("openvino", "cpu", _openvino, _open_openvino),
    BackEnd("openvino", "gpu", _openvino_on_gpu, _open_openvino, automatic=False, device_is_named=True),
    BackEnd("torch", "cpu", _torch, _open_torch, automatic=False),
    ONNXRUNTIME,
)
"""In the order in which `auto` tries them."""


def candidates(
    settings: DetectorSettings, model: Path, back_ends: tuple[BackEnd, ...] = BACK_ENDS
) -> Iterator[tuple[BackEnd, str]]:
    """The back ends that the settings allow for, in order, each with why it cannot run `model` here."""
    device, _, number = settings.device.partition(".")
    for back_end in back_ends:
        is_named = back_end.name == settings.backend
        if not (is_named or settings.backend == "auto") or device not in ("auto", back_end.device):
            continue
        if back_end.device_is_named and device == "auto":
            continue
        if back_end.automatic or is_named:
            reason = "" if back_end.device_is_named else _one_device_only(number)
            yield back_end, reason or back_end.why_not(settings, model)
        elif back_end.device_is_named:
            yield back_end, f'runs only where detector.backend is "{back_end.name}"'


def _one_device_only(number: str) -> str:
    if number.strip("0"):
        return f"runs on the first GPU; to use another, set the variable CUDA_VISIBLE_DEVICES to {number}"
    return ""


def open_back_end(
    settings: DetectorSettings,
    pixel_size_um: float,
    model: Path,
    back_ends: tuple[BackEnd, ...] = BACK_ENDS,
    say: Say = log.info,
) -> Opened:
    """Open the first back end that can run `model` here; `say` reports what takes long.

    Raises `ConfigurationError` where none can, and for an unusable model.
    """
    skipped: dict[str, str] = {}
    for back_end, why_not in candidates(settings, model, back_ends):
        reason = why_not
        if not reason:
            try:
                return Opened(back_end.open(settings, pixel_size_um, model, say), back_end, skipped)
            except BackEndError as error:
                reason = str(error)
        skipped[str(back_end)] = reason
        log.info("%s is not used: %s", back_end, reason)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items()) or "no such back end"
    where, both = "here", "it"
    if settings.device != "auto":
        where, both = f'with detector.device "{settings.device}"', "both"
    raise ConfigurationError(
        f'detector.backend "{settings.backend}" cannot run {model.name} {where} ({reasons}); set {both} to "auto"'
    )
