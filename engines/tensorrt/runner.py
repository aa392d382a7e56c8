"""Running a built engine on the GPU: one engine for all frames in flight, with a context for each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engines.cuda.device import Device, DeviceBuffer
from engines.cuda.layout import MOST_PARTICLES, FrameFormat
from engines.cuda.slot import Enqueue, Runner
from engines.engine import BackEndError
from engines.file_hash import file_hash
from engines.flatfield import FlatField
from engines.network.model import OnnxModel
from engines.tensorrt.build import OPTIMISATION
from engines.tensorrt.cache import EngineCache, EngineKey
from engines.tensorrt.library import Messages, load_tensorrt
from engines.tensorrt.onnx_file import DARK, FACTOR, KEPT, MAPS, RAW, SUMMARY, shapes_of


class TensorRTRunner:
    """A deserialised engine for frames of one format. Raises `BackEndError` where it is not for these."""

    def __init__(
        self, trt: Any, device: Device, plan: bytes, frame: FrameFormat, flat_field: FlatField | None
    ) -> None:
        self.frame = frame
        self._messages = Messages(trt)
        self._runtime = runtime = trt.Runtime(self._messages.logger)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BackEndError(
                f"TensorRT {trt.__version__} cannot read the engine ({self._messages.errors()}); build it again "
                "with `liveptv engine build`"
            )
        self._engine = engine
        names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        wanted = {name: shape for name, (shape, _) in shapes_of(frame).items()}
        found = {name: tuple(engine.get_tensor_shape(name)) for name in names}
        if found != wanted:
            raise BackEndError(
                f"the engine has the tensors {found}, not {wanted}; build it again with `liveptv engine build`"
            )
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
        context = self._engine.create_execution_context()
        if context is None:
            raise BackEndError(
                f"TensorRT has no memory for another frame in flight: {self._messages.errors()}"
            )
        tensors = {RAW: raw, KEPT: kept, SUMMARY: summary, MAPS: maps, **self._references}
        for name, buffer in tensors.items():
            if not context.set_tensor_address(name, buffer.address):
                raise BackEndError(f"TensorRT rejects the memory of {name}: {self._messages.errors()}")

        def enqueue(stream: int) -> None:
            if not context.execute_async_v3(stream):
                raise RuntimeError(f"TensorRT did not start: {self._messages.errors()}")

        return enqueue


class TensorRTBackEnd:
    """Opens engines that were built before; never builds one itself."""

    name = "tensorrt"

    def __init__(
        self, device: Device, *, half: bool = True, trt: Any = None, cache: EngineCache | None = None
    ) -> None:
        self.trt = load_tensorrt() if trt is None else trt
        self.device, self.half = device, half
        self.cache = cache or EngineCache()

    def frame_of(self, frame: FrameFormat) -> FrameFormat:
        """The format of an engine for such frames: its room for particles does not depend on the settings."""
        return replace(frame, particles=MOST_PARTICLES)

    def key(self, path: Path, frame: FrameFormat) -> EngineKey:
        """What an engine for such frames is kept under."""
        return EngineKey.of(
            file_hash(path),
            self.frame_of(frame),
            self.device.facts,
            half=self.half,
            version=str(self.trt.__version__),
            optimisation=OPTIMISATION,
        )

    def runner(
        self, path: Path, model: OnnxModel, frame: FrameFormat, flat_field: FlatField | None
    ) -> Runner:
        """A runner for such frames. Raises `BackEndError`, with what to do, where no engine was built for them."""
        key = self.key(path, frame)
        plan = self.cache.read(key)
        if plan is None:
            command = build_command(path, frame, half=self.half)
            raise BackEndError(f"{self.cache.why_not(key)}: run `{command}`, which takes minutes")
        return TensorRTRunner(self.trt, self.device, plan, self.frame_of(frame), flat_field)


def build_command(path: Path, frame: FrameFormat, *, half: bool) -> str:
    """The command that builds an engine for such frames."""
    options = f"--height {frame.height} --width {frame.width}"
    if frame.bytes_per_pixel != np.dtype(np.uint8).itemsize:
        options += f" --bits {8 * frame.bytes_per_pixel}"
    if frame.flat_field:
        options += " --flat-field"
    if not half:
        options += " --precision full"
    return f"liveptv engine build {path.name} {options}"
