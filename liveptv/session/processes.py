"""A stage's vessel: a spawned process by default, a thread where the session asks for threads."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Literal

from liveptv.session.plan import Bound, Peers, Recorded, StagePlan
from liveptv.session.runner import run_stage

JOIN_S = 5.0


class Worker:
    """One running stage and the pipe to it. `waiting` is whether it waits to be told its inputs."""

    def __init__(self, vessel: SpawnProcess | threading.Thread, pipe: Connection) -> None:
        self._vessel = vessel
        self._pipe = pipe
        self.waiting = False

    @property
    def pid(self) -> int | None:
        """The process id, None for a thread."""
        return self._vessel.pid if isinstance(self._vessel, SpawnProcess) else None

    def alive(self) -> bool:
        """Whether the stage still runs."""
        return self._vessel.is_alive()

    def messages(self) -> list[Bound | Recorded]:
        """What the stage has said over the pipe since the last call."""
        found: list[Bound | Recorded] = []
        try:
            while self._pipe.poll():
                found.append(self._pipe.recv())
        except (EOFError, OSError):
            pass  # the stage has closed its end; whether that was right is seen by `alive`
        return found

    def tell(self, peers: Peers) -> None:
        """Send the stage its inputs; a stage that died meanwhile is seen by `alive`."""
        try:
            self._pipe.send(peers)
        except (BrokenPipeError, OSError):
            return

    def describe_exit(self) -> str:
        """How the process ended, in words."""
        if not isinstance(self._vessel, SpawnProcess) or self._vessel.exitcode is None:
            return "its thread is over"
        code = self._vessel.exitcode
        if code >= 0:
            return f"exit status {code}"
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"

    def kill(self) -> None:
        """End the process at once if it still runs, and release the pipe. A thread cannot be killed."""
        if isinstance(self._vessel, SpawnProcess):
            if self._vessel.is_alive():
                self._vessel.kill()
            self._vessel.join(JOIN_S)
        self._pipe.close()


def start_worker(plan: StagePlan, mode: Literal["processes", "threads"]) -> Worker:
    """Start one stage."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    vessel: SpawnProcess | threading.Thread
    if mode == "processes":
        vessel = context.Process(
            target=run_stage, args=(plan, theirs), name=f"liveptv-{plan.stage}", daemon=True
        )
        _quiet_resource_tracker()
        with _deaf_to_signals():
            vessel.start()
        theirs.close()
    else:
        vessel = threading.Thread(
            target=run_stage, args=(plan, theirs), name=f"liveptv-{plan.stage}", daemon=True
        )
        vessel.start()
    return Worker(vessel, ours)


@contextmanager
def _deaf_to_signals() -> Iterator[None]:
    """Let processes be born deaf to Ctrl-C and `kill`, which reach every process of a terminal or a service.

    What they do then is the session's decision. On Windows a stage ignores Ctrl-C from its first line on.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _quiet_resource_tracker() -> None:
    """Start the process that releases a killed stage's shared memory without its warning about that."""
    if sys.platform == "win32":
        return
    from multiprocessing import resource_tracker

    option = "ignore:resource_tracker:UserWarning"
    sys.warnoptions.append(option)
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(option)
