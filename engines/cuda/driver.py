"""Is there a GPU at all? Asked of NVIDIA's driver itself, so that no library has to be loaded where there is none.

Beyond that it is more than a courtesy: TensorRT's runtime ends the process where it finds no device.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

SUCCESS, NO_DEVICE = 0, 100


def _load() -> Any:
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def why_no_gpu(load: Callable[[], Any] = _load) -> str:
    """Why there is no NVIDIA GPU that programs can use; "" where there is one. Takes up no memory on it."""
    try:
        driver = load()
    except OSError:
        return "no driver of an NVIDIA GPU"
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status == NO_DEVICE or (status == SUCCESS and count.value == 0):
        return "no NVIDIA GPU"
    return (
        ""
        if status == SUCCESS
        else f"the NVIDIA driver refuses to start (CUDA error {status}); see nvidia-smi"
    )
