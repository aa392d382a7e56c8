"""NVIDIA's driver: loading it, and asking it whether there is a GPU, before any other library is loaded.

This check is necessary: TensorRT's runtime ends the process where it finds no device.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

SUCCESS, NO_DEVICE = 0, 100


def load_driver() -> Any:
    """The driver's library. Raises `OSError` where there is none."""
    if sys.platform == "win32":
        return ctypes.WinDLL("nvcuda.dll")
    return ctypes.CDLL("libcuda.so.1")


def why_no_gpu(load: Callable[[], Any] = load_driver) -> str:
    """Why no NVIDIA GPU can be used; "" where one can. Uses no memory on the GPU."""
    try:
        driver = load()
    except OSError:
        return "no NVIDIA GPU driver"
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status == NO_DEVICE or (status == SUCCESS and count.value == 0):
        return "no NVIDIA GPU"
    return (
        ""
        if status == SUCCESS
        else f"the NVIDIA driver cannot be started (CUDA error {status}); check it with nvidia-smi"
    )
