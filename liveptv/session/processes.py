"""Worker processes (or threads) of the pipeline stages: starts them, talks to them and kills them."""

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

from liveptv.session.plan import Abandon, Bound, ConsumerLost, Peers, Recorded, StagePlan, UpstreamLost
from liveptv.session.process_end import how_it_ended
from liveptv.session.runner import run_stage

JOIN_S = 5.0
"""How long to wait for a killed process, or for a thread that was told to end, s. The kernel needs milliseconds for
a process that does not hang in a driver; a thread looks at its pipe after each step (`runner.STEP_S`)."""
HAS_LANE = frozenset({"acquire"})  # stages with a second pipe, for the safety of the hardware
ENDING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
)


class Worker:
    """One running stage and the pipe to it; `lane` is the acquisition's second pipe (`session.safety_lane`)."""

    def __init__(
        self, running_in: SpawnProcess | threading.Thread, pipe: Connection, lane: Connection | None = None
    ) -> None:
        self._running_in = running_in
        self._pipe = pipe
        self.lane = lane

    @property
    def pid(self) -> int | None:
        """The process id, None for a thread."""
        return self._running_in.pid if isinstance(self._running_in, SpawnProcess) else None

    def alive(self) -> bool:
        """Whether the stage still runs."""
        return self._running_in.is_alive()

    def messages(self) -> list[Bound | Recorded]:
        """What the stage has sent through the pipe since the last call."""
        found: list[Bound | Recorded] = []
        try:
            while self._pipe.poll():
                found.append(self._pipe.recv())
        except (EOFError, OSError):
            pass  # the stage has closed its end; `alive` tells whether it has ended
        return found

    @property
    def can_be_killed(self) -> bool:
        """Whether it is a process, which can be killed and started again."""
        return isinstance(self._running_in, SpawnProcess)

    def tell(self, message: Peers | UpstreamLost | ConsumerLost | Abandon) -> None:
        """Send the stage a message. A stage that has died meanwhile shows in `alive`."""
        try:
            self._pipe.send(message)
        except (BrokenPipeError, OSError, ValueError):
            return

    def hang_up(self) -> None:
        """Close the pipes: the stage then sees that the session is gone, and drains."""
        self._pipe.close()
        if self.lane is not None:
            self.lane.close()

    def describe_exit(self) -> str:
        """How the process ended, in words."""
        if not isinstance(self._running_in, SpawnProcess) or self._running_in.exitcode is None:
            return "its thread has ended"
        return how_it_ended(self._running_in.exitcode)

    def kill(self) -> None:
        """Kill the process if it still runs, and close the pipes.

        A thread cannot be killed: it is told to end, and gets a moment for that, since it may still hold the lock
        of the trajectory file.
        """
        if not isinstance(self._running_in, SpawnProcess):
            self.tell(Abandon())
        elif self._running_in.is_alive():
            self._running_in.kill()
        self.hang_up()
        self._running_in.join(JOIN_S)


def start_worker(plan: StagePlan, mode: Literal["processes", "threads"]) -> Worker:
    """Start one stage."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    lane, their_lane = context.Pipe() if plan.stage in HAS_LANE else (None, None)
    arguments = (plan, theirs, their_lane)
    name = f"liveptv-{plan.stage}"
    running_in: SpawnProcess | threading.Thread
    if mode == "processes":
        running_in = context.Process(target=run_stage, args=arguments, name=name, daemon=True)
        start_ignoring_signals(running_in)
        theirs.close()
        if their_lane is not None:
            their_lane.close()
    else:
        running_in = threading.Thread(target=run_stage, args=arguments, name=name, daemon=True)
        running_in.start()
    return Worker(running_in, ours, lane)


def start_ignoring_signals(process: SpawnProcess) -> None:
    """Start a process that ignores Ctrl-C and a closed terminal; the session decides what they mean."""
    with _signals_blocked():
        _quiet_resource_tracker()  # unblocks SIGINT and SIGTERM once it has started
    with _signals_blocked():
        process.start()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block the signals that end a program while a process is started, so that it inherits the blocked state.

    Ctrl-C and a closed terminal reach every process of the terminal; only the session must react. On Windows a
    stage ignores Ctrl-C from its first line on.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _quiet_resource_tracker() -> None:
    """Start the process that releases the shared memory of killed stages, without its warning about it."""
    if sys.platform == "win32":
        return
    from multiprocessing import resource_tracker

    option = "ignore:resource_tracker:UserWarning"
    sys.warnoptions.append(option)
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(option)
