"""A CUDA device through NVIDIA's driver alone, so that a camera PC needs neither torch nor a CUDA toolkit."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.cuda.device import DeviceBuffer, DeviceFacts, HostBuffer, Work, check_same
from engines.cuda.driver.api import CudaError, DriverApi
from engines.cuda.driver.context import Context
from engines.cuda.driver.graph import NON_BLOCKING, DriverGraph
from engines.cuda.driver.kernels import DriverKernel, load_kernels
from engines.cuda.driver.library import load_driver, why_no_gpu
from engines.engine import BackEndError

MULTIPROCESSORS, CAPABILITY_MAJOR, CAPABILITY_MINOR = 16, 75, 76
"""Attributes of a device."""
LONGEST_NAME = 256


def open_cuda() -> DriverCuda:
    """The first GPU. Raises `BackEndError` where there is none, or where its driver does not start."""
    reason = why_no_gpu()
    if reason:
        raise BackEndError(reason)
    try:
        return DriverCuda(load_driver())
    except CudaError as error:
        raise BackEndError(f"the NVIDIA GPU cannot be used: {error}") from error


class PageLocked:
    """Page-locked memory of the host; freed with the last view of it."""

    def __init__(self, context: Context, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        kind = np.dtype(dtype)
        size = max(1, math.prod(shape) * kind.itemsize)
        with context.current():
            address = context.api.handle("cuMemHostAlloc", size, 0)
            memory: Any = (ctypes.c_ubyte * size).from_address(address)
            context.own(memory, partial(context.api, "cuMemFreeHost", address), lasting=True)
        self.array: npt.NDArray[Any] = np.ndarray(shape, kind, memory)
        self.array.fill(0)


class DeviceMemory:
    """Memory of the GPU."""

    def __init__(self, context: Context, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        with context.current():
            self.address = context.api.handle("cuMemAlloc_v2", max(1, self.nbytes))
            context.own(self, partial(context.api, "cuMemFree_v2", self.address))


class DriverCuda:
    """The first GPU, through `library`, its driver. Raises `CudaError` where it cannot be used."""

    def __init__(self, library: Any) -> None:
        self._context = context = Context(DriverApi(library))
        try:
            self.facts = _facts(context.api, context.device)
            # for zeros, uploads and slow reads, apart from the frames' own streams
            with context.current():
                self._errands = context.api.handle("cuStreamCreate", NON_BLOCKING)
                context.own(self, partial(context.api, "cuStreamDestroy_v2", self._errands))
        except BaseException:
            context.close()
            raise

    def on_host(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> PageLocked:
        """Page-locked memory, zeros. Raises `CudaError` where none is left."""
        return PageLocked(self._context, shape, dtype)

    def on_device(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceMemory:
        """Memory of the GPU, zeros. Raises `CudaError` where none is left."""
        made = DeviceMemory(self._context, shape, dtype)
        self._errand("cuMemsetD8Async", made.address, 0, made.nbytes)
        return made

    def upload(self, array: npt.NDArray[Any]) -> DeviceMemory:
        """Memory of the GPU with what `array` holds. Raises `CudaError` where none is left."""
        given = np.ascontiguousarray(array)
        made = DeviceMemory(self._context, given.shape, given.dtype)
        self._errand("cuMemcpyHtoDAsync_v2", made.address, given.ctypes.data, made.nbytes)
        return made

    def read(self, buffer: DeviceBuffer) -> npt.NDArray[Any]:
        """A copy of what `buffer` holds. Raises `CudaError` where the GPU fails."""
        found = np.empty(buffer.shape, buffer.dtype)
        self._errand("cuMemcpyDtoHAsync_v2", found.ctypes.data, buffer.address, found.nbytes)
        return found

    def _errand(self, name: str, target: int, source: int, size: int) -> None:
        """Do one thing and wait for it."""
        if not size:
            return
        with self._context.current():
            self._context.api(name, target, source, size, self._errands)
            self._context.api("cuStreamSynchronize", self._errands)

    def copy_in(self, target: DeviceBuffer, source: HostBuffer, stream: int) -> None:
        """Enqueue a copy to the GPU."""
        array = source.array
        check_same(target, array)
        with self._context.current():
            self._context.api("cuMemcpyHtoDAsync_v2", target.address, array.ctypes.data, array.nbytes, stream)

    def copy_out(self, target: HostBuffer, source: DeviceBuffer, stream: int) -> None:
        """Enqueue a copy from the GPU."""
        array = target.array
        check_same(source, array)
        with self._context.current():
            self._context.api("cuMemcpyDtoHAsync_v2", array.ctypes.data, source.address, array.nbytes, stream)

    def current(self) -> AbstractContextManager[None]:
        """The GPU's context as this thread's."""
        return self._context.current()

    def load(self, image: bytes, names: Sequence[str]) -> Mapping[str, DriverKernel]:
        """The kernels with these names of a compiled module. Raises `CudaError` where they cannot be had."""
        return load_kernels(self._context, image, names)

    def record(self, work: Work) -> DriverGraph:
        """Do `work` a few times, then capture it in a CUDA graph with a stream of its own."""
        return DriverGraph(self._context, work)

    def close(self) -> None:
        """Free everything, the newest first. Idempotent.

        Page-locked memory that somebody still looks at goes with its last view, and the GPU's context with that.
        """
        self._context.close()


def _facts(api: DriverApi, device: int) -> DeviceFacts:
    name = ctypes.create_string_buffer(LONGEST_NAME)
    api("cuDeviceGetName", name, LONGEST_NAME, device)
    major, minor, multiprocessors = (
        int(api.value(ctypes.c_int, "cuDeviceGetAttribute", attribute, device))
        for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR, MULTIPROCESSORS)
    )
    memory_bytes = int(api.value(ctypes.c_size_t, "cuDeviceTotalMem_v2", device))
    cuda = int(api.value(ctypes.c_int, "cuDriverGetVersion"))
    return DeviceFacts(
        name.value.decode(errors="replace"),
        (major, minor),
        multiprocessors,
        memory_bytes,
        f"{cuda // 1000}.{cuda % 1000 // 10}",
    )
