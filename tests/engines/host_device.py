"""A device that is the processor itself: each piece of recorded work has a thread, as it would have a stream."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from engines.cuda.device import DeviceFacts

torch.set_num_threads(1)  # each stream has one, and tests run beside each other
TYPES = {np.uint8: torch.uint8, np.float32: torch.float32}


class HostDevice:
    """Keeps count of what is under way; `fail_at` is the number of the start that fails, and all after it."""

    def __init__(self, *, fail_at: int | None = None, takes_s: float = 0.0) -> None:
        self.facts = DeviceFacts("the processor", (9, 0), 132, 1 << 34)
        self.fail_at, self.takes_s = fail_at, takes_s
        self.lock = threading.Lock()
        self.started, self.under_way, self.most_under_way = 0, 0, 0
        self.pools: list[ThreadPoolExecutor] = []

    def on_host(self, shape, dtype):
        return torch.zeros(shape, dtype=TYPES[dtype])

    on_device = on_host

    def upload(self, array):
        return torch.from_numpy(array).clone()

    def place(self, module):
        return module

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
        self._do()

    def _do(self) -> None:
        with torch.inference_mode():
            self.work(self.handle)

    def _run(self, number: int) -> None:
        device = self.device
        with device.lock:
            device.under_way += 1
            device.most_under_way = max(device.most_under_way, device.under_way)
        try:
            if device.fail_at is not None and number >= device.fail_at:
                raise RuntimeError("CUDA error: an illegal memory access was encountered\n(more)")
            time.sleep(device.takes_s)
            self._do()
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
