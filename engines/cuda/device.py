"""All calls to a CUDA device: buffers, streams and CUDA graphs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engines.cuda.driver import why_no_gpu
from engines.engine import BackEndError

Work = Callable[[int], None]
"""Enqueues copies and kernels on the stream with the given handle, without waiting."""
WARM_RUNS = 3
"""Runs before a capture, in which torch allocates and chooses its kernels."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """Name, compute capability, multiprocessors and memory of a device."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int


class Recorded(Protocol):
    """Work recorded on a stream of its own."""

    def start(self) -> None:
        """Start it once more; returns at once."""
        ...

    def wait(self) -> None:
        """Wait until it is done. Raises `RuntimeError` where the device failed."""
        ...


class Device(Protocol):
    """A device with tensors of its own that works in parallel to the processor."""

    @property
    def facts(self) -> DeviceFacts:
        """What the device is."""
        ...

    def on_host(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        """A tensor in memory that the device can access itself, so that copies run in parallel to other work."""
        ...

    def on_device(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        """A tensor of zeros in the device's memory."""
        ...

    def upload(self, array: npt.NDArray[Any]) -> Any:
        """A tensor in the device's memory with what `array` holds."""
        ...

    def place(self, module: Any) -> Any:
        """A torch module, moved there."""
        ...

    def record(self, work: Work) -> Recorded:
        """Do `work` a few times, then record it to be done again at the cost of one call."""
        ...


def why_no_cuda() -> str:
    """Why no GPU can be used here and what to do; "" where one can."""
    reason = why_no_gpu()
    if reason:
        return reason
    if importlib.util.find_spec("torch") is None:
        return "torch not installed: see pytorch.org for the command that fits your CUDA"
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA: see pytorch.org for one that is"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} cannot use the NVIDIA GPU: its driver is too old"
    return ""


def open_cuda() -> Device:
    """The first GPU. Raises `BackEndError` where there is none."""
    reason = why_no_cuda()
    if reason:
        raise BackEndError(reason)
    return TorchCuda()


class TorchCuda:
    """The first GPU, through torch's streams, graphs and allocators."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._device = torch.device("cuda", 0)
        # no TF32, so that single precision can be compared
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        found = torch.cuda.get_device_properties(self._device)
        self.facts = DeviceFacts(
            found.name, (found.major, found.minor), found.multi_processor_count, found.total_memory
        )

    def _type(self, dtype: type[np.generic]) -> Any:
        return getattr(self._torch, np.dtype(dtype).name)

    def on_host(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        """A tensor in page-locked memory."""
        return self._torch.zeros(shape, dtype=self._type(dtype), pin_memory=True)

    def on_device(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        """A tensor of zeros in the GPU's memory."""
        return self._torch.zeros(shape, dtype=self._type(dtype), device=self._device)

    def upload(self, array: npt.NDArray[Any]) -> Any:
        """A tensor in the GPU's memory with what `array` holds."""
        return self._torch.from_numpy(array).to(self._device)

    def place(self, module: Any) -> Any:
        """A torch module, moved to the GPU."""
        return module.to(self._device)

    def record(self, work: Work) -> Recorded:
        """Do `work` a few times on a stream of its own, as a capture requires, then capture it in a CUDA graph."""
        return CudaGraph(self._torch, self._device, work)


class CudaGraph:
    """Work captured in a CUDA graph, and the stream that it is launched on."""

    def __init__(self, torch: Any, device: Any, work: Work) -> None:
        self._torch = torch
        self._work = work  # what it reads and writes has to stay where it is
        self._stream = torch.cuda.Stream(device)
        self._done = torch.cuda.Event(blocking=True)
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(device)
        with torch.inference_mode():
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_RUNS):
                    work(self._stream.cuda_stream)
            self._stream.synchronize()
            with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                work(self._stream.cuda_stream)
        torch.cuda.synchronize(device)

    def start(self) -> None:
        """Launch the graph."""
        with self._torch.cuda.stream(self._stream):
            self._graph.replay()
            self._done.record(self._stream)

    def wait(self) -> None:
        """Sleep, without the interpreter's lock, until it is done."""
        self._done.synchronize()
