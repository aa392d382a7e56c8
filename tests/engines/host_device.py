"""A device that is the processor itself: each piece of recorded work has a thread, as it would have a stream."""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np

from engines.cuda.device import DeviceFacts, check_same


@functools.cache
def torch_of_one_thread():
    import torch

    torch.set_num_threads(1)  # each stream has one, and tests run beside each other
    return torch


class HostBuffer:
    """An array, at an address, and a tensor where torch is installed: a buffer of either side."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.address = array.ctypes.data

    @functools.cached_property
    def tensor(self):
        return torch_of_one_thread().from_numpy(self.array)


class HostDevice:
    """Keeps count of what is under way; `fail_at` is the number of the start that fails, and all after it.

    `kernels` makes kernels of a compiled module: `kernel_on_cpu.Kernels`, or none.
    """

    def __init__(self, *, fail_at: int | None = None, takes_s: float = 0.0, kernels=None) -> None:
        self.kernels = kernels
        self.facts = DeviceFacts("the processor", (9, 0), 132, 1 << 34)
        self.fail_at, self.takes_s = fail_at, takes_s
        self.lock = threading.Lock()
        self.started, self.under_way, self.most_under_way = 0, 0, 0
        self.pools: list[ThreadPoolExecutor] = []

    def on_host(self, shape, dtype):
        return HostBuffer(np.zeros(shape, dtype))

    on_device = on_host

    def upload(self, array):
        return HostBuffer(array.copy())

    def copy_in(self, target, source, _stream):
        check_same(target, source.array)
        np.copyto(target.array, source.array)

    copy_out = copy_in

    def read(self, buffer):
        return buffer.array.copy()

    def current(self):
        return nullcontext()

    def place(self, module):
        return module

    def load(self, image, names):
        if self.kernels is None:
            raise RuntimeError("this device runs no kernels")
        return self.kernels(image, names)

    def record(self, work):
        return _Stream(self, work, len(self.pools) + 1)

    def close(self):
        for pool in self.pools:
            pool.shutdown()


class _Stream:
    def __init__(self, device: HostDevice, work, handle: int) -> None:
        self.device, self.work, self.handle = device, work, handle
        self.pool = ThreadPoolExecutor(1)
        device.pools.append(self.pool)
        self.done: Future[None] | None = None
        self.work(handle)

    def _run(self, number: int) -> None:
        device = self.device
        with device.lock:
            device.under_way += 1
            device.most_under_way = max(device.most_under_way, device.under_way)
        try:
            if device.fail_at is not None and number >= device.fail_at:
                raise RuntimeError("CUDA error: an illegal memory access was encountered\n(more)")
            time.sleep(device.takes_s)
            self.work(self.handle)
        finally:
            with device.lock:
                device.under_way -= 1

    def start(self) -> None:
        assert self.done is None or self.done.done(), "an answer was not waited for"
        with self.device.lock:
            number = self.device.started
            self.device.started += 1
        self.done = self.pool.submit(self._run, number)

    def wait(self) -> None:
        self.done.result()

    def close(self) -> None:
        self.pool.shutdown()
        self.work = None
