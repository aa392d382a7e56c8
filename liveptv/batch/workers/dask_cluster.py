"""A cluster of dask.distributed that is running: its workers perform the tasks.

dask gives the task of a lost worker to another one by itself, `distributed.scheduler.allowed-failures` times (3).
"""

from __future__ import annotations

import contextlib
import uuid
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from liveptv.batch.task import Answer, Task
from liveptv.batch.workers.interface import Lost, Perform
from stream.errors import ConfigurationError, LivePTVError

HOW = 'pip install "liveptv[batch]"'
CONNECT_S = 30.0
"""Time to reach the scheduler, s."""
GONE_S = 10.0
"""A scheduler that cannot be reached again for this time is gone, s: longer than a network drops out."""


class DaskWorkers:
    """The workers of the scheduler at `address`, such as tcp://host:8786."""

    def __init__(self, address: str, perform: Perform) -> None:
        """Connect. Raises `ConfigurationError` without dask.distributed, `LivePTVError` if nobody answers."""
        try:
            import distributed
        except ImportError as error:
            raise ConfigurationError(f"--scheduler needs dask.distributed; install it with: {HOW}") from error
        self._address, self._perform = address, perform
        try:
            self._client: Any = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
        except (TimeoutError, OSError, ValueError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise LivePTVError(
                f"no dask scheduler answers at {address} ({why}); start it, or correct the address"
            ) from error
        self._killed: Any = distributed.scheduler.KilledWorker
        self._prefix = f"liveptv-{uuid.uuid4().hex[:8]}"  # other batches may use the same scheduler
        self._futures: dict[str, Any] = {}
        self._done: SimpleQueue[tuple[str, Any]] = SimpleQueue()

    @property
    def count(self) -> int:
        """Workers of the cluster now."""
        with contextlib.suppress(Exception):  # a scheduler that is gone is told by `answers`
            return len(self._client.scheduler_info(n_workers=-1)["workers"])
        return 0

    @property
    def title(self) -> str:
        """Who they are."""
        return f"{self.count} workers of {self._address}"

    def submit(self, ticket: str, task: Task) -> None:
        """Queue a task at the scheduler."""
        future = self._client.submit(
            _one_thread, self._perform, task, key=f"{self._prefix}-{ticket}", pure=False
        )
        self._futures[ticket] = future
        future.add_done_callback(lambda done, ticket=ticket: self._done.put((ticket, done)))

    def answers(self, timeout_s: float) -> list[tuple[str, Answer | Lost]]:
        """What the workers have answered."""
        found: list[tuple[str, Answer | Lost]] = []
        wait_s = timeout_s
        while True:
            try:
                ticket, future = self._done.get(timeout=wait_s) if wait_s > 0 else self._done.get_nowait()
            except Empty:
                break
            wait_s = 0.0
            if self._futures.pop(ticket, None) is None:
                continue
            found.append((ticket, self._answer(future)))
            with contextlib.suppress(
                Exception
            ):  # its answer is taken; a scheduler that is gone is told below
                future.release()
        if not found and self._client.status not in {"running", "connecting"}:
            raise self._gone()
        return found

    def _answer(self, future: Any) -> Answer | Lost:
        if future.status == "finished":
            answer = future.result(timeout=CONNECT_S)
            if not isinstance(answer, Answer):
                raise LivePTVError(f"a worker of {self._address} answered with {type(answer).__name__}")
            return answer
        if future.status in {"cancelled", "lost"}:
            raise self._gone()
        error = future.exception(timeout=CONNECT_S)
        if isinstance(error, self._killed):
            return Lost(f"it kills its worker: {' '.join(str(error).split())[:200]}", gives_up=True)
        return Answer("failed", f"a worker could not perform it ({type(error).__name__}: {error})")

    def _gone(self) -> LivePTVError:
        return LivePTVError(
            f"the dask scheduler at {self._address} is gone; start it, and this command again: it goes on where "
            "it was"
        )

    def close(self) -> None:
        """Take back what is not done, and disconnect. Idempotent."""
        with contextlib.suppress(Exception):  # a scheduler that is gone needs no goodbye
            self._client.cancel(list(self._futures.values()), force=True)
        self._futures.clear()
        with contextlib.suppress(Exception):  # the same
            self._client.close(timeout=GONE_S)


def is_open_to_others(address: str) -> bool:
    """Whether programs of other computers may reach a scheduler without a certificate."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    return parts.scheme == "tcp" and parts.hostname not in {"127.0.0.1", "localhost", "::1"}


def _one_thread(perform: Perform, task: Task) -> Answer:
    """Perform a task with one thread for the libraries that would use all cores."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return perform(task)
