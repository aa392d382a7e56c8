"""Name and compute capability of the first NVIDIA GPU, asked of the driver without using the GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engines.cuda.driver.library import SUCCESS, load_driver, why_no_gpu
from engines.engine import BackEndError

MAJOR, MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of CUDA's driver API."""
LONGEST_NAME = 256


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU."""

    name: str
    capability: tuple[int, int]

    def __str__(self) -> str:
        """Name and compute capability."""
        return f"{self.name} (compute capability {'.'.join(map(str, self.capability))})"


def first_gpu(load: Callable[[], Any] = load_driver) -> Gpu:
    """The first GPU. Raises `BackEndError` where there is none."""
    reason = why_no_gpu(load)
    if reason:
        raise BackEndError(reason)
    driver, device = load(), ctypes.c_int()
    _done(driver.cuDeviceGet(ctypes.byref(device), 0))
    name = ctypes.create_string_buffer(LONGEST_NAME)
    _done(driver.cuDeviceGetName(name, LONGEST_NAME, device))
    found = []
    for attribute in (MAJOR, MINOR):
        value = ctypes.c_int()
        _done(driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device))
        found.append(value.value)
    return Gpu(name.value.decode("utf-8", "replace"), (found[0], found[1]))


def _done(status: int) -> None:
    if status != SUCCESS:
        raise BackEndError(f"the NVIDIA driver does not describe the GPU (CUDA error {status})")
