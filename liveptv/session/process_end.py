"""Ends a process that runs beside a run or for it, and says how it ended."""

from __future__ import annotations

import signal
from multiprocessing.context import SpawnProcess

KILLED_S = 60.0
"""Longest wait for a process that has been killed, s. It needs milliseconds, but gives back its memory itself: at
the lowest priority, beside busy programs, that took over 1 s. One that hangs in a driver takes longer; the program
ends without it."""


def end_process(process: SpawnProcess, patience_s: float) -> None:
    """Give the process `patience_s` to end by itself, then kill it. Idempotent."""
    process.join(patience_s)
    if process.is_alive():
        process.kill()
        process.join(KILLED_S)


def how_it_ended(code: int | None) -> str:
    """What the exit code of a process means, in words; None where it still runs."""
    if code is None:
        return "still running"
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
