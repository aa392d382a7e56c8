"""A CUDA device through torch: its streams, graphs and allocators."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.cuda.device import WARM_RUNS, DeviceBuffer, DeviceFacts, HostBuffer, Kernel, Work, check_same
from engines.cuda.driver.api import DriverApi
from engines.cuda.driver.context import Context
from engines.cuda.driver.kernels import load_kernels
from engines.cuda.driver.library import load_driver, why_no_gpu
from engines.engine import BackEndError


def why_no_torch_cuda() -> str:
    """Why torch can use no GPU here and what to do; "" where it can."""
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


def open_torch_cuda() -> TorchCuda:
    """The first GPU. Raises `BackEndError` where torch can use none."""
    reason = why_no_torch_cuda()
    if reason:
        raise BackEndError(reason)
    return TorchCuda()


class TensorBuffer:
    """A tensor on either side."""

    def __init__(self, tensor: Any, dtype: np.dtype[Any]) -> None:
        self.tensor, self.dtype = tensor, dtype
        self.shape: tuple[int, ...] = tuple(tensor.shape)
        self.address: int = tensor.data_ptr()

    @property
    def array(self) -> npt.NDArray[Any]:
        """A view, where the memory is the host's."""
        view: npt.NDArray[Any] = self.tensor.numpy()
        return view


def tensor_of(buffer: DeviceBuffer | HostBuffer) -> Any:
    """The tensor of a buffer that a device of torch's has made."""
    found: Any = buffer
    return found.tensor


class TorchCuda:
    """The first GPU, through torch."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._context: Context | None = None
        self._device = torch.device("cuda", 0)
        # no TF32, so that single precision can be compared
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        found = torch.cuda.get_device_properties(self._device)
        self.facts = DeviceFacts(
            found.name,
            (found.major, found.minor),
            found.multi_processor_count,
            found.total_memory,
            str(torch.version.cuda),
        )

    def _zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike, **place: Any) -> TensorBuffer:
        kind = np.dtype(dtype)
        tensor = self._torch.zeros(shape, dtype=getattr(self._torch, kind.name), **place)
        return TensorBuffer(tensor, kind)

    def on_host(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> TensorBuffer:
        """A tensor of zeros in page-locked memory."""
        return self._zeros(shape, dtype, pin_memory=True)

    def on_device(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> TensorBuffer:
        """A tensor of zeros in the GPU's memory."""
        return self._zeros(shape, dtype, device=self._device)

    def upload(self, array: npt.NDArray[Any]) -> TensorBuffer:
        """A tensor in the GPU's memory with what `array` holds."""
        tensor = self._torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
        return TensorBuffer(tensor, array.dtype)

    def copy_in(self, target: DeviceBuffer, source: HostBuffer, stream: int) -> None:
        """Enqueue a copy to the GPU."""
        check_same(target, source.array)
        self._copy(target, source, stream)

    def copy_out(self, target: HostBuffer, source: DeviceBuffer, stream: int) -> None:
        """Enqueue a copy from the GPU."""
        check_same(source, target.array)
        self._copy(target, source, stream)

    def _copy(
        self, target: DeviceBuffer | HostBuffer, source: DeviceBuffer | HostBuffer, stream: int
    ) -> None:
        cuda = self._torch.cuda
        if cuda.current_stream(self._device).cuda_stream == stream:
            tensor_of(target).copy_(tensor_of(source), non_blocking=True)
            return
        with cuda.stream(cuda.ExternalStream(stream, self._device)):
            tensor_of(target).copy_(tensor_of(source), non_blocking=True)

    def read(self, buffer: DeviceBuffer) -> npt.NDArray[Any]:
        """A copy of what `buffer` holds."""
        found: npt.NDArray[Any] = tensor_of(buffer).cpu().numpy()
        return found

    @contextmanager
    def current(self) -> Iterator[None]:
        """The GPU as this thread's."""
        with self._torch.cuda.device(self._device):
            yield

    def load(self, image: bytes, names: Sequence[str]) -> Mapping[str, Kernel]:
        """The kernels with these names of a compiled module, through the driver, in the context that torch uses."""
        if self._context is None:
            self._context = Context(DriverApi(load_driver()))
        return load_kernels(self._context, image, names)

    def place(self, module: Any) -> Any:
        """A torch module, moved to the GPU."""
        return module.to(self._device)

    def record(self, work: Work) -> CudaGraph:
        """Do `work` a few times on a stream of its own, as a capture requires, then capture it in a CUDA graph."""
        return CudaGraph(self._torch, self._device, work)

    def close(self) -> None:
        """Unload kernels; torch frees by itself what nobody refers to any more."""
        if self._context is not None:
            self._context.close()


class CudaGraph:
    """Work captured in a CUDA graph, and the stream that it is launched on."""

    def __init__(self, torch: Any, device: Any, work: Work) -> None:
        self._torch = torch
        self._work: Work | None = work  # what it reads and writes has to stay where it is
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

    def close(self) -> None:
        """Wait for the last launch and let go of the graph and its work."""
        if self._work is not None:
            self._stream.synchronize()
            self._work = self._graph = None
