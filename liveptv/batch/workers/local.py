"""Worker processes of this computer, each with a pipe of its own; one that dies is replaced."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from liveptv.batch.task import Answer, Task
from liveptv.batch.workers.interface import MOST_LOSSES, Lost, Perform
from liveptv.session.process_end import end_process, how_it_ended
from liveptv.session.processes import start_ignoring_signals
from stream.errors import LivePTVError

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""Environment of a worker: libraries that would use all cores for each of many workers use one."""
MOST_DEATHS_AT_ONCE = 40
"""Workers that may die, one after the other, before any has finished a task: ten recordings that each kill
their four workers. More, and something is wrong with all of them."""
PATIENCE_S = 5.0
"""Wait for a worker whose pipe is closed to end by itself, s."""


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    ticket: str = ""


class LocalWorkers:
    """`count` processes that perform tasks in the order in which they are submitted."""

    def __init__(self, count: int, perform: Perform) -> None:
        self._perform = perform
        self._count = count
        self._queue: deque[str] = deque()
        self._tasks: dict[str, Task] = {}
        self._losses: Counter[str] = Counter()
        self._deaths = 0
        self._workers: list[_Worker] = []

    @property
    def count(self) -> int:
        """Number of processes."""
        return self._count

    @property
    def title(self) -> str:
        """Who they are."""
        return f"{self._count} worker{'s' if self._count > 1 else ''} on this computer"

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that were started."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def submit(self, ticket: str, task: Task) -> None:
        """Queue a task."""
        self._tasks[ticket] = task
        self._queue.append(ticket)
        self._hand_out()

    def _hand_out(self) -> None:
        idle = [worker for worker in self._workers if not worker.ticket]
        while self._queue:
            if not idle and len(self._workers) < self._count:
                idle.append(self._start())
            if not idle:
                return
            worker, ticket = idle.pop(), self._queue.popleft()
            worker.ticket = ticket
            with contextlib.suppress(OSError):  # a worker that has died meanwhile is noticed by its pipe
                worker.pipe.send(self._tasks[ticket])

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=work, args=(theirs, self._perform), name="liveptv-batch", daemon=True
        )
        with _environment(ONE_THREAD):
            start_ignoring_signals(process)  # Ctrl-C reaches every process of the terminal; the batch decides
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def answers(self, timeout_s: float) -> list[tuple[str, Answer | Lost]]:
        """What the workers have answered, and who was lost."""
        found: list[tuple[str, Answer | Lost]] = []
        by_pipe = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(by_pipe), timeout_s):
            worker = by_pipe[pipe]  # type: ignore[index]
            try:
                answer: Answer = worker.pipe.recv()
            except (EOFError, OSError):
                found += self._bury(worker)
                continue
            ticket, worker.ticket = worker.ticket, ""
            self._deaths = 0
            self._forget(ticket)
            found.append((ticket, answer))
        self._hand_out()
        return found

    def _bury(self, worker: _Worker) -> list[tuple[str, Answer | Lost]]:
        """Remove a worker that has died; its task is queued again, first, unless that has been done too often."""
        end_process(worker.process, PATIENCE_S)  # its pipe is closed: it ends
        how = how_it_ended(worker.process.exitcode)
        worker.pipe.close()
        self._workers.remove(worker)
        self._deaths += 1
        if self._deaths > MOST_DEATHS_AT_ONCE:
            raise LivePTVError(f"{self._deaths} workers died one after the other, the last one {how}")
        ticket = worker.ticket
        if not ticket:
            return []
        self._losses[ticket] += 1
        if self._losses[ticket] > MOST_LOSSES:
            times = self._losses[ticket]
            self._forget(ticket)
            return [(ticket, Lost(f"it kills its worker: {how}, {times} times", gives_up=True))]
        self._queue.appendleft(ticket)
        return [(ticket, Lost(how))]

    def _forget(self, ticket: str) -> None:
        self._tasks.pop(ticket, None)
        self._losses.pop(ticket, None)

    def close(self) -> None:
        """End the processes. Idempotent."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.pipe.close()  # an idle one ends by itself
            if worker.ticket:
                worker.process.kill()
        for worker in workers:
            end_process(worker.process, PATIENCE_S)


def work(pipe: Connection, perform: Perform) -> None:
    """Main function of a worker: perform tasks until the pipe is closed; ends with the process that started it."""
    for name in ("SIGINT", "SIGBREAK"):  # on Windows they cannot be blocked from the start
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    while True:
        try:
            task: Task = pipe.recv()
        except (EOFError, OSError):
            return
        answer = perform(task)
        try:
            pipe.send(answer)
        except OSError:
            return


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # in the middle of whatever it does: unfinished files are removed by the next batch


@contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    """The environment with some variables that are not set yet, while a process is started."""
    added = {name: value for name, value in more.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
