"""Loading a compiled module through the driver, and launching its kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from engines.cuda.device import Argument
from engines.cuda.driver.api import CudaError
from engines.cuda.driver.context import Context

ERROR_LOG, ERROR_LOG_BYTES = 5, 6
"""Options of the driver's compiler: where it writes its errors, and how many bytes it may."""
LOG_BYTES = 4096
MOST_SHARED = 8
"""Attribute of a kernel: the dynamic shared memory that it may be launched with."""
SHARED_BYTES = 48 * 1024
"""Dynamic shared memory that every kernel may be launched with."""


class _Module:
    """A module; unloaded when the last of its kernels is gone."""

    def __init__(self, context: Context, image: bytes) -> None:
        log = ctypes.create_string_buffer(LOG_BYTES)
        options = (ctypes.c_int * 2)(ERROR_LOG, ERROR_LOG_BYTES)
        values = (ctypes.c_void_p * 2)(ctypes.addressof(log), LOG_BYTES)
        try:
            self.handle = context.api.handle("cuModuleLoadDataEx", image, 2, options, values)
        except CudaError as error:
            said = " ".join(log.value.decode(errors="replace").split())
            raise CudaError(f"{error}{f' ({said})' if said else ''}", error.status) from error
        context.own(self, partial(context.api, "cuModuleUnload", self.handle))


class DriverKernel:
    """A kernel of a module."""

    def __init__(self, context: Context, module: _Module, name: str) -> None:
        self._context, self._module = context, module
        self._shared = SHARED_BYTES
        self._function = context.api.handle("cuModuleGetFunction", module.handle, name.encode())

    def launch(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared_bytes: int,
        arguments: Sequence[Argument],
        stream: int,
    ) -> None:
        """Enqueue it. Raises `CudaError` where the GPU rejects it."""
        # the driver copies the arguments before it returns
        values = [np.array(a if isinstance(a, np.generic) else np.uint64(a.address)) for a in arguments]
        pointers = (ctypes.c_void_p * max(1, len(values)))(*(value.ctypes.data for value in values))
        with self._context.current():
            if shared_bytes > self._shared:
                self._context.api("cuFuncSetAttribute", self._function, MOST_SHARED, shared_bytes)
                self._shared = shared_bytes
            self._context.api(
                "cuLaunchKernel", self._function, *grid, *block, shared_bytes, stream, pointers, None
            )


def load_kernels(context: Context, image: bytes, names: Sequence[str]) -> Mapping[str, DriverKernel]:
    """These kernels of a compiled module (PTX, cubin or fatbin). Raises `CudaError` where they cannot be had."""
    with context.current():
        module = _Module(context, image)
        return {name: DriverKernel(context, module, name) for name in names}
