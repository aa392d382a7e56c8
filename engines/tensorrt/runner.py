"""Running a built engine on the GPU: one engine for all frames in flight, with a context for each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines.cuda.device import Device, DeviceBuffer
from engines.cuda.layout import FrameFormat
from engines.cuda.slot import Enqueue, Runner
from engines.engine import BackEndError
from engines.flatfield import FlatField
from engines.network.model import OnnxModel
from engines.tensorrt import rtx
from engines.tensorrt.aside import aside
from engines.tensorrt.compiled_kernels import CompiledKernels
from engines.tensorrt.library import Loaded
from engines.tensorrt.messages import messages_of
from engines.tensorrt.onnx_file import DARK, FACTOR, KEPT, MAPS, RAW, SUMMARY, shapes_of
from engines.tensorrt.plans import Plans
from stream.errors import OutputError

log = logging.getLogger(__name__)

INSUFFICIENT = "CUDA driver version is insufficient"
"""In CUDA's words, where the driver is missing as well."""
REPORTED_S = 2.0
"""Between two reports of how far a build is; most builds are done before the first."""


class TensorRTRunner:
    """A deserialised engine for frames of one format. Raises `BackEndError` where it is not for these.

    `kernels` is where compiled kernels are kept, for a library that compiles them here.
    """

    def __init__(
        self,
        loaded: Loaded,
        device: Device,
        plan: bytes,
        frame: FrameFormat,
        flat_field: FlatField | None,
        kernels: CompiledKernels | None = None,
    ) -> None:
        trt = loaded.trt
        self.frame = frame
        self._device = device
        self._messages = messages_of(trt)
        self._messages.forget()
        runtime, engine = self._aside(lambda: _opened(trt, self._messages.logger, plan))
        self._runtime: Any = runtime
        if engine is None:
            said = self._messages.first()
            advice = rtx.OLD_DRIVER if INSUFFICIENT in said else rtx.BUILD_AGAIN
            if loaded.library.is_portable:
                advice = rtx.why_invalid(trt, runtime, plan) or advice
            raise BackEndError(f"{loaded} cannot read the engine, {advice} ({said})")
        self._engine: Any = engine
        names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        wanted = {name: shape for name, (shape, _) in shapes_of(frame).items()}
        found = {name: tuple(engine.get_tensor_shape(name)) for name in names}
        if found != wanted:
            raise BackEndError(
                f"the engine has the tensors {found}, not {wanted}; build it again with `liveptv engine build`"
            )
        self._kernels = kernels
        self._contexts = self._aside(lambda: rtx.Contexts(trt, engine)) if kernels else None
        self._is_first = True
        self._references: dict[str, DeviceBuffer] = {}
        if flat_field is not None:
            self._references = {
                DARK: device.upload(flat_field.dark),
                FACTOR: device.upload(flat_field.factor),
            }

    def bind(
        self, raw: DeviceBuffer, kept: DeviceBuffer, summary: DeviceBuffer, maps: DeviceBuffer
    ) -> Enqueue:
        """What puts the engine's work on a stream, in a context of its own."""
        context = self._context()
        if context is None:
            raise BackEndError(
                f"TensorRT has no memory for another frame in flight: {self._messages.errors()}"
            )
        tensors = {RAW: raw, KEPT: kept, SUMMARY: summary, MAPS: maps, **self._references}
        for name, buffer in tensors.items():
            if not context.set_tensor_address(name, buffer.address):
                raise BackEndError(f"TensorRT rejects the memory of {name}: {self._messages.errors()}")
        asked = self._contexts is None

        def enqueue(stream: int) -> None:
            nonlocal asked
            if not asked and not rtx.can_be_recorded(context, stream):
                raise BackEndError(
                    f"TensorRT's work cannot be recorded on this GPU: {self._messages.errors()}"
                )
            asked = True
            if not context.execute_async_v3(stream):
                raise RuntimeError(f"TensorRT did not start: {self._messages.errors()}")

        return enqueue

    def close(self) -> None:
        """Let go of the engine: an error that was raised may keep the runner, longer than the device is there."""
        self._contexts = self._engine = self._runtime = None
        self._references = {}

    def _aside(self, work: Callable[[], Any]) -> Any:
        """The result of `work`, done in a thread on the device."""

        def on_device() -> Any:
            with self._device.current():
                return work()

        return aside(on_device)

    def _context(self) -> Any:
        contexts, kernels = self._contexts, self._kernels
        if contexts is None or kernels is None:
            return self._aside(self._engine.create_execution_context)
        if self._is_first:
            self._is_first = False
            return self._aside(lambda: _first_context(contexts, kernels))
        return self._aside(contexts.make)


def _opened(trt: Any, logger: Any, plan: bytes) -> tuple[Any, Any]:
    """A runtime and its engine; None for one that it cannot read."""
    runtime = trt.Runtime(logger)
    return runtime, runtime.deserialize_cuda_engine(plan)


def _first_context(contexts: rtx.Contexts, kernels: CompiledKernels) -> Any:
    """With kept kernels, or else with new ones, which are kept."""
    kept = kernels.take()
    if kept is not None:
        if contexts.accept(kept):
            context = contexts.make()
            if context is not None:
                kernels.worked()
            return context
        kernels.reject("TensorRT rejects them")
    kernels.say(f"compiling for the {kernels.gpu.name}, once for this GPU and driver: some seconds")
    begun_s = time.perf_counter()
    context = contexts.make()
    if context is not None:
        kernels.say(f"compiled in {time.perf_counter() - begun_s:.1f} s")
        kernels.write(contexts.compiled())
    return context


class TensorRTBackEnd:
    """Opens engines that were built before; builds one itself where that takes seconds. `say` reports on that."""

    name = "tensorrt"

    def __init__(self, device: Device, plans: Plans, say: Callable[[str], None] = log.info) -> None:
        self.device, self.plans, self.half, self._say = device, plans, plans.half, say

    def runner(
        self, path: Path, model: OnnxModel, frame: FrameFormat, flat_field: FlatField | None
    ) -> Runner:
        """A runner for such frames. Raises `BackEndError`, with what to do, where it has no engine for them."""
        plan = self.plans.read(path, frame)
        if plan is None:
            if not self.plans.loaded.library.is_portable:
                raise BackEndError(f"{self.plans.why_none(path, frame)}, which takes minutes")
            plan = self._built(path, model, frame)
        return self.runner_of(plan, path, frame, flat_field)

    def runner_of(
        self, plan: bytes, path: Path, frame: FrameFormat, flat_field: FlatField | None
    ) -> TensorRTRunner:
        """A runner of an engine."""
        loaded, kernels = self.plans.loaded, None
        if loaded.library.is_portable:
            kernels = CompiledKernels(
                self.plans.cache.folder, self.plans.key(path, frame), self.device.facts, self._say
            )
        return TensorRTRunner(loaded, self.device, plan, self.plans.frame_of(frame), flat_field, kernels)

    def _built(self, path: Path, model: OnnxModel, frame: FrameFormat) -> bytes:
        what = f"the engine of {path.name} for images of {frame.width} x {frame.height}"
        self._say(f"building {what} with {self.plans.loaded}: some seconds, once")
        begun_s = time.perf_counter()
        plan = self.plans.build(path, model, frame, Reports(self._say))
        self._say(f"built in {time.perf_counter() - begun_s:.1f} s")
        try:
            self.plans.keep(path, frame, plan)
        except OutputError as error:
            self._say(f"{error}; the next run builds it again")
        return plan


class Reports:
    """Says how far a build is, every few seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said_s = time.perf_counter()

    def __call__(self, phase: str, done: int, of: int) -> None:
        """Say it where it is time."""
        if time.perf_counter() - self._said_s >= REPORTED_S:
            self._said_s = time.perf_counter()
            self._say(f"{phase}: {done} of {of} steps")
