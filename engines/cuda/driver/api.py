"""The CUDA driver's functions that are used, with their types and checked results.

Names and types are those of NVIDIA's `cuda.h`, which maps each name without a suffix to the newest version of the
function. All of them are in every driver since CUDA 11.4; `ctypes` lets go of the interpreter's lock in each call.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int, c_size_t, c_ubyte, c_uint, c_uint64, c_void_p
from typing import Any

from engines.cuda.driver.library import SUCCESS
from engines.engine import BackEndError

OUT = c_void_p
"""Address of a variable for a result."""
DEVICE, MEMORY, HANDLE = c_int, c_uint64, c_void_p
"""CUdevice, CUdeviceptr, and the pointers to what only the driver knows: contexts, streams, graphs."""
THREE = (c_uint, c_uint, c_uint)

SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (OUT,),
    "cuGetErrorName": (c_int, OUT),
    "cuGetErrorString": (c_int, OUT),
    "cuDeviceGet": (OUT, c_int),
    "cuDeviceGetName": (OUT, c_int, DEVICE),
    "cuDeviceGetAttribute": (OUT, c_int, DEVICE),
    "cuDeviceTotalMem_v2": (OUT, DEVICE),
    "cuDevicePrimaryCtxRetain": (OUT, DEVICE),
    "cuDevicePrimaryCtxRelease_v2": (DEVICE,),
    "cuCtxPushCurrent_v2": (HANDLE,),
    "cuCtxPopCurrent_v2": (OUT,),
    "cuMemAlloc_v2": (OUT, c_size_t),
    "cuMemFree_v2": (MEMORY,),
    "cuMemHostAlloc": (OUT, c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemsetD8Async": (MEMORY, c_ubyte, c_size_t, HANDLE),
    "cuMemcpyHtoDAsync_v2": (MEMORY, c_void_p, c_size_t, HANDLE),
    "cuMemcpyDtoHAsync_v2": (c_void_p, MEMORY, c_size_t, HANDLE),
    "cuStreamCreate": (OUT, c_uint),
    "cuStreamSynchronize": (HANDLE,),
    "cuStreamDestroy_v2": (HANDLE,),
    "cuEventCreate": (OUT, c_uint),
    "cuEventRecord": (HANDLE, HANDLE),
    "cuEventSynchronize": (HANDLE,),
    "cuEventDestroy_v2": (HANDLE,),
    "cuStreamBeginCapture_v2": (HANDLE, c_int),
    "cuStreamEndCapture": (HANDLE, OUT),
    "cuGraphInstantiateWithFlags": (OUT, HANDLE, c_uint64),
    "cuGraphLaunch": (HANDLE, HANDLE),
    "cuGraphDestroy": (HANDLE,),
    "cuGraphExecDestroy": (HANDLE,),
    "cuModuleLoadDataEx": (OUT, c_char_p, c_uint, c_void_p, c_void_p),
    "cuModuleUnload": (HANDLE,),
    "cuModuleGetFunction": (OUT, HANDLE, c_char_p),
    "cuFuncSetAttribute": (HANDLE, c_int, c_int),
    "cuLaunchKernel": (HANDLE, *THREE, *THREE, c_uint, HANDLE, c_void_p, c_void_p),
}

OUT_OF_MEMORY = 2
LOST = {
    4: "its driver was shut down",
    46: "it is in use or was taken out",
    201: "its context is gone",
    214: "its memory has an error that cannot be corrected",
    700: "a kernel used memory that is not its own",
    702: "a kernel took longer than the system allows",
    709: "its context is gone",
    710: "a kernel stopped itself",
    714: "a kernel's stack was damaged",
    715: "a kernel met an unknown instruction",
    716: "a kernel used memory at an odd address",
    717: "a kernel used memory of the wrong kind",
    718: "a kernel went astray",
    719: "a kernel failed",
    999: "the driver was reset or failed",
}
"""CUDA errors after which this process cannot use the GPU any more."""


class CudaError(RuntimeError):
    """A call to the driver that failed, with its `status`."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class DriverApi:
    """Calls the driver. Raises `BackEndError` where the driver lacks a function."""

    def __init__(self, library: Any) -> None:
        self._functions: dict[str, Any] = {}
        for name, types in SIGNATURES.items():
            try:
                function = getattr(library, name)
            except AttributeError:
                raise BackEndError(f"the NVIDIA driver is too old: it lacks {name}; update it") from None
            function.argtypes, function.restype = types, c_int
            self._functions[name] = function

    def __call__(self, name: str, *arguments: Any) -> None:
        """Call a function. Raises `CudaError` where it fails."""
        status = self._functions[name](*arguments)
        if status != SUCCESS:
            raise self._error(name, status, arguments)

    def value(self, kind: Any, name: str, *arguments: Any) -> Any:
        """What a function writes to its first argument, a ctypes `kind`."""
        found = kind()
        self(name, ctypes.byref(found), *arguments)
        return found.value

    def handle(self, name: str, *arguments: Any) -> int:
        """The handle or address that a function writes to its first argument."""
        found: int = self.value(c_uint64, name, *arguments)
        return found

    def _error(self, name: str, status: int, arguments: tuple[Any, ...]) -> CudaError:
        call = f"CUDA error {status} in {name}: {self._text(status)}"
        if status in LOST:
            return CudaError(
                f"the GPU is lost to this program, {LOST[status]} ({call}); start it again", status
            )
        if status == OUT_OF_MEMORY:
            size = f" for {arguments[1]} bytes" if "Alloc" in name else ""
            where = "page-locked memory" if name == "cuMemHostAlloc" else "memory on the GPU"
            return CudaError(f"no {where} left{size} ({call}); end other programs that use it", status)
        return CudaError(call, status)

    def _text(self, status: int) -> str:
        """The name and the meaning of an error, in the driver's words."""
        words = []
        for name in ("cuGetErrorName", "cuGetErrorString"):
            found = c_char_p()
            if self._functions[name](status, ctypes.byref(found)) == SUCCESS and found.value:
                words.append(found.value.decode(errors="replace"))
        return ", ".join(words) or "unknown"
