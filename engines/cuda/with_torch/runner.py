"""The network on a GPU with torch, without TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from engines.cuda.device import Device, DeviceBuffer
from engines.cuda.layout import FrameFormat
from engines.cuda.slot import Enqueue, Runner
from engines.cuda.with_torch.device import tensor_of
from engines.cuda.with_torch.program import FrameProgram
from engines.flatfield import FlatField
from engines.network.model import OnnxModel
from engines.network.torch_model import network_of


class TorchDevice(Device, Protocol):
    """A device whose buffers are tensors (`torch_device.tensor_of`)."""

    def place(self, module: Any) -> Any:
        """A torch module, moved there."""
        ...


class TorchRunner:
    """A `FrameProgram` on a device, with its flat field there as well."""

    def __init__(
        self, device: TorchDevice, program: FrameProgram, frame: FrameFormat, flat_field: FlatField | None
    ) -> None:
        self.frame = frame
        self._program = program
        references = () if flat_field is None else (flat_field.dark, flat_field.factor)
        self._references: tuple[Any, ...] = tuple(tensor_of(device.upload(array)) for array in references)

    def bind(
        self, raw: DeviceBuffer, kept: DeviceBuffer, summary: DeviceBuffer, maps: DeviceBuffer
    ) -> Enqueue:
        """What runs the program on the current stream."""
        given, *results = (tensor_of(buffer) for buffer in (raw, kept, summary, maps))

        def enqueue(_: int) -> None:
            found = self._program(given, *self._references)
            for there, here in zip(results, found, strict=True):
                there.copy_(here)

        return enqueue

    def close(self) -> None:
        """Let go of the flat field's references; torch frees the network with the runner."""
        self._references = ()


class TorchBackEnd:
    """Opens torch runners, in half precision by default."""

    name = "torch"

    def __init__(self, device: TorchDevice, *, half: bool = True) -> None:
        self.device = device
        self.half = half

    def runner(
        self, path: Path, model: OnnxModel, frame: FrameFormat, flat_field: FlatField | None
    ) -> Runner:
        """A runner for such frames. Raises `ConfigurationError` where the model lacks its weights."""
        program = FrameProgram(network_of(model, str(path)), model.card, frame, half=self.half).eval()
        return TorchRunner(self.device, self.device.place(program), frame, flat_field)
