"""Signals that end a run (Ctrl-C, `kill`, a closed terminal), and those that are ignored meanwhile (Ctrl-Z)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK")
PAUSING = ("SIGTSTP",)  # Ctrl-Z would freeze the acquisition with its pump running


@contextlib.contextmanager
def ending_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Call `stop` with the name of each signal that should end the run; restores the earlier handlers afterwards.

    After the terminal was closed (SIGHUP; on Windows the console's window) output is discarded. If the program was
    started with `nohup`, SIGHUP stays ignored. Ctrl-Z is ignored.
    """
    before: dict[signal.Signals, Any] = {}

    def handle(number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name == "SIGHUP":
            _print_nowhere()
        stop(name)

    for number in _there_are(ENDING):
        if number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN:
            continue
        before[number] = signal.signal(number, handle)
    for number in _there_are(PAUSING):
        before[number] = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _there_are(names: tuple[str, ...]) -> list[signal.Signals]:
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _print_nowhere() -> None:
    """Discard output to a terminal; output that was redirected to a file is still written."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                if os.isatty(stream.fileno()):
                    os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
