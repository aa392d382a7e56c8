"""Thread pool whose results are taken in the order in which the work was given."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from threading import Barrier
from typing import Generic, TypeVar

Result = TypeVar("Result")

THREAD_PREFIX = "work "  # of the names of the threads, so that their processor time can be told from others'
WAITING_PER_WORKER = 2
"""Items per thread that are pending at most: one in work and one waiting, so that no thread idles. More would only
add latency."""


def default_workers() -> int:
    """Default number of threads: the processors less two, which the other pipeline stages need; at most eight."""
    return min(8, max(1, (os.cpu_count() or 1) - 2))


class OrderedWork(Generic[Result]):
    """A pool of `workers` threads, used by a single thread."""

    def __init__(self, workers: int, name: str) -> None:
        self.workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"{THREAD_PREFIX}{name}")
        self._waiting: deque[Future[Result]] = deque()
        self._on_done: Callable[[], None] | None = None

    def __len__(self) -> int:
        """Number of items given and not taken yet."""
        return len(self._waiting)

    def announce(self, call: Callable[[], None]) -> None:
        """Have `call` called, in the thread that did it, after each piece of work."""
        self._on_done = call

    def give(self, work: Callable[[], Result]) -> None:
        """Queue `work`; waits while two items per worker are pending."""
        most = WAITING_PER_WORKER * self.workers
        if len(self._waiting) >= most:
            wait_for([self._waiting[-most]])
        future = self._pool.submit(work)
        self._waiting.append(future)
        if (call := self._on_done) is not None:
            future.add_done_callback(lambda _: call())

    def on_every_thread(self, work: Callable[[], object]) -> None:
        """Have `work` done once by each thread, at the same time; raises what it raised."""
        all_here = Barrier(self.workers)

        def at_once() -> None:
            all_here.wait()
            work()

        for future in [self._pool.submit(at_once) for _ in range(self.workers)]:
            future.result()

    def take(self, timeout_s: float) -> list[Result]:
        """Return what is ready, in order; waits up to `timeout_s` for the first. Raises what the work raised."""
        deadline_s = time.monotonic() + timeout_s
        ready: list[Result] = []
        while self._waiting:
            head = self._waiting[0]
            if not head.done():
                left_s = deadline_s - time.monotonic()
                if ready or left_s <= 0:
                    break
                wait_for([head], left_s)
                continue
            self._waiting.popleft()
            ready.append(head.result())
        return ready

    def close(self) -> None:
        """Wait for the work in progress, and cancel the rest. Idempotent."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()
