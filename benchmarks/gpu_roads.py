"""The ways to run a network on a machine with a GPU, each with why it cannot be used; stand-ins for a rehearsal.

A rehearsal runs the same code on the processor, in small: a thread for each stream, ONNX Runtime for TensorRT.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engines.backends.registry import BACK_ENDS, missing
from engines.cuda.driver.device import open_cuda
from engines.cuda.driver.first_gpu import first_gpu
from engines.cuda.engine import GpuBackEnd, GpuEngine
from engines.cuda.fit.frame import KernelFit
from engines.cuda.layout import FrameFormat
from engines.cuda.slot import Runner
from engines.cuda.with_torch.device import why_no_torch_cuda
from engines.engine import BackEndError, Engine
from engines.flatfield import FlatField
from engines.network.model import OnnxModel
from engines.refine.refiner import Refiner
from engines.settings import DetectorSettings
from engines.tensorrt.cache import EngineCache
from engines.tensorrt.library import LIBRARIES, RTX, Library, Loaded, load_library
from engines.tensorrt.plans import Plans
from engines.tensorrt.runner import TensorRTBackEnd

Row = dict[str, Any]
sys.path.append(str(Path(__file__).parents[1] / "tests" / "engines"))  # of the stand-ins


@dataclass(frozen=True, slots=True)
class Road:
    """A way to run networks; `back_end(half, folder)` opens it, its engines kept in the folder.

    Without `back_end` it is one for the processor's engine, chosen by `settings`. `may_be_tried` says that
    it can be opened on any NVIDIA GPU, for what its library says there.
    """

    name: str
    why_not: Callable[[], str]
    back_end: Callable[[bool, Path], GpuBackEnd] | None
    settings: Row
    may_be_tried: bool = False

    def open(self, model: Path, folder: Path, *, half: bool, refine: bool, fit: str = "processor") -> Engine:
        """An engine for a model, the fit where `fit` says. Raises `BackEndError` where that fails."""
        given = {"refine": refine, "workers": min(8, os.cpu_count() or 1), **self.settings}
        settings = DetectorSettings(precision="auto" if half else "full", **given)
        pixel_size_um = OnnxModel(model).card.pixel_size_um
        if self.back_end is not None:
            return FitsThere(settings, pixel_size_um, model, self.back_end(half, folder), fit)
        device = "gpu" if settings.device == "gpu" else "cpu"
        one = next(b for b in BACK_ENDS if (b.name, b.device) == (settings.backend, device))
        return one.open(settings, pixel_size_um, model)


class FitsThere(GpuEngine):
    """The GPU's engine, whose fit is done where it is told and not where it is faster."""

    def __init__(
        self,
        settings: DetectorSettings,
        pixel_size_um: float,
        model: Path,
        back_end: GpuBackEnd,
        fit: str,
    ) -> None:
        super().__init__(settings, pixel_size_um, model, back_end, closes_device=True)
        self._wanted = fit

    def _choose_fit(self, refiner: Refiner, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        if self._wanted == "gpu":
            refiner.fit_all = self._kernel_fit = KernelFit(refiner.model, self._back_end.device)
            self._fit_on = "gpu"


def roads(*, rehearse: bool) -> tuple[Road, ...]:
    """All ways, the one that `auto` prefers first, the processor last."""
    processor = Road("onnxruntime", lambda: "", None, {"backend": "onnxruntime"})
    if rehearse:
        return (*_stand_ins(), processor)
    intel = {"backend": "openvino", "device": "gpu"}
    return (*_nvidias(), Road("openvino", _why_not("openvino", **intel), None, intel), processor)


def _why_not(name: str, device: str = "gpu", **settings: Any) -> Callable[[], str]:
    one = next(b for b in BACK_ENDS if (b.name, b.device) == (name, device))
    return lambda: one.why_not(DetectorSettings(device=device, **settings), Path("none.onnx"))


def _nvidias() -> tuple[Road, ...]:
    def torch(half: bool, _folder: Path) -> GpuBackEnd:
        from engines.cuda.with_torch.device import open_torch_cuda
        from engines.cuda.with_torch.runner import TorchBackEnd

        return TorchBackEnd(open_torch_cuda(), half=half)

    return (
        *(
            Road(
                library.extra,
                partial(_why_no, library),
                partial(_tensorrt, library),
                {"backend": "tensorrt"},
                library.is_installed,
            )
            for library in LIBRARIES
        ),
        Road("torch", why_no_torch_cuda, torch, {"backend": "torch"}),
    )


def _why_no(library: Library) -> str:
    try:
        return library.why_not_on(first_gpu()) or ("" if library.is_installed else library.how_to_install)
    except BackEndError as error:
        return str(error)


def _tensorrt(library: Library, half: bool, folder: Path) -> GpuBackEnd:
    """Either library on the first GPU; what it has to build is built now, and kept in the folder."""
    device = open_cuda()
    plans = Plans(load_library(library), device.facts, half, EngineCache(folder / library.extra))
    return BuildsAll(device, plans, say)


class BuildsAll(TensorRTBackEnd):
    """Builds every engine that it lacks, those of full TensorRT too."""

    def runner(
        self, path: Path, model: OnnxModel, frame: FrameFormat, flat_field: FlatField | None
    ) -> Runner:
        """A runner for such frames."""
        if self.plans.read(path, frame) is None:
            begun_s = time.perf_counter()
            plan = self.plans.build(path, model, frame, lambda *_: None)
            say(f"built in {time.perf_counter() - begun_s:.1f} s: {len(plan)} bytes")
            self.plans.keep(path, frame, plan)
        return super().runner(path, model, frame, flat_field)


said: list[str] = []
"""What the libraries told while an engine was opened."""


def say(text: str) -> None:
    """Keep it for the row of a start."""
    said.append(text)


def _stand_ins() -> tuple[Road, ...]:
    def torch(half: bool, folder: Path) -> GpuBackEnd:
        from engines.cuda.with_torch.runner import TorchBackEnd

        return TorchBackEnd(stand_in_device(folder), half=half)

    def tensorrt(half: bool, folder: Path) -> GpuBackEnd:
        from stand_in_tensorrt import stand_in_for_rtx

        loaded, device = Loaded(RTX, stand_in_for_rtx()), stand_in_device(folder)
        return BuildsAll(device, Plans(loaded, device.facts, half, EngineCache(folder / RTX.extra)), say)

    return (
        Road(RTX.extra, lambda: missing("onnx", "onnxscript", extra="rtx"), tensorrt, {}),
        Road("torch", lambda: missing("torch", extra="train"), torch, {}),
    )


def stand_in_device(folder: Path) -> Any:
    """A device that is the processor. The fit's kernel is built once, by a C compiler, from the GPU's source."""
    import host_device
    import kernel_on_cpu

    built = folder / "kernel" / "fit_kernel.so"
    if not built.is_file():
        built.parent.mkdir(exist_ok=True)
        kernel_on_cpu.build(built.parent)
    return host_device.HostDevice(kernels=kernel_on_cpu.Kernels(ctypes.CDLL(str(built))))
