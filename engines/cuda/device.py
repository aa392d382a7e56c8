"""What a CUDA device does for a frame: memory on both sides, copies, kernels, and recorded work.

A stream is a CUDA stream's handle, 0 being none of ours. Every call may come from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Work = Callable[[int], None]
"""Enqueues copies and kernels on the stream with the given handle, without waiting."""
WARM_RUNS = 3
"""Runs before a capture, in which libraries allocate and choose their kernels."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """Name, compute capability, multiprocessors and memory of a device, newest CUDA of its driver ("12.4")."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int
    driver: str = ""


class HostBuffer(Protocol):
    """Page-locked memory, which the device reads and writes itself in parallel to other work."""

    @property
    def array(self) -> npt.NDArray[Any]:
        """A view of it, with the shape and type that were asked for; the memory lasts as long as any view."""
        ...


class DeviceBuffer(Protocol):
    """Memory of the device; freed when nothing refers to the buffer any more, or when the device is closed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its type."""
        ...

    @property
    def address(self) -> int:
        """The device's pointer to it."""
        ...


Argument = DeviceBuffer | np.generic
"""Of a kernel: a buffer, whose pointer is passed, or a number, passed with its own type."""


class Kernel(Protocol):
    """A function that runs on the device."""

    def launch(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared_bytes: int,
        arguments: Sequence[Argument],
        stream: int,
    ) -> None:
        """Enqueue it: `grid` blocks of `block` threads, with `shared_bytes` of dynamic shared memory each."""
        ...


class Recorded(Protocol):
    """Work recorded on a stream of its own."""

    def start(self) -> None:
        """Start it once more; returns at once."""
        ...

    def wait(self) -> None:
        """Wait until it is done. Raises `RuntimeError` where the device failed."""
        ...

    def close(self) -> None:
        """Wait for what was started and free what it took, its work's buffers too if nobody else has them."""
        ...


class Device(Protocol):
    """A device with memory of its own that works in parallel to the processor. Errors are `RuntimeError`."""

    @property
    def facts(self) -> DeviceFacts:
        """What the device is."""
        ...

    def on_host(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> HostBuffer:
        """Page-locked memory, zeros."""
        ...

    def on_device(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceBuffer:
        """Memory of the device, zeros."""
        ...

    def upload(self, array: npt.NDArray[Any]) -> DeviceBuffer:
        """Memory of the device with what `array` holds; it is there on return."""
        ...

    def copy_in(self, target: DeviceBuffer, source: HostBuffer, stream: int) -> None:
        """Enqueue a copy to the device. Raises `ValueError` where size or type differ."""
        ...

    def copy_out(self, target: HostBuffer, source: DeviceBuffer, stream: int) -> None:
        """Enqueue a copy to the host. Raises `ValueError` where size or type differ."""
        ...

    def read(self, buffer: DeviceBuffer) -> npt.NDArray[Any]:
        """A copy of what work that was waited for has left in `buffer`; slow."""
        ...

    def current(self) -> AbstractContextManager[None]:
        """The device as this thread's, for the calls of a library that looks for it there."""
        ...

    def load(self, image: bytes, names: Sequence[str]) -> Mapping[str, Kernel]:
        """The kernels with these names of a compiled module (PTX, cubin or fatbin)."""
        ...

    def record(self, work: Work) -> Recorded:
        """Do `work` a few times, then record it to be done again at the cost of one call."""
        ...

    def close(self) -> None:
        """Free everything. Idempotent."""
        ...


def check_same(one: DeviceBuffer, other: npt.NDArray[Any]) -> None:
    """Raise `ValueError` unless a copy between the two is possible."""
    if one.shape != other.shape or one.dtype != other.dtype:
        raise ValueError(f"{other.dtype} {other.shape} cannot be copied to or from {one.dtype} {one.shape}")
