"""Entry of the command line: makes output and signals safe, then hands over to `liveptv.cli`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import weakref
from types import FrameType

from liveptv.end_requested import end_requested
from liveptv.terminal import make_output_safe

AGAIN_S = 0.02  # s until the signal is sent again; finalisers take microseconds, and nobody notices 20 ms


def main() -> None:
    """Run the command line; the exit status is 0 (done), 1 (the run failed) or 2 (wrong usage)."""
    multiprocessing.freeze_support()
    make_output_safe()
    _stop_politely()
    try:
        status = _run()
    except KeyboardInterrupt:
        sys.stderr.write("error: stopped by the user\n")
        status = 1
    _forget_interrupted_text()
    raise SystemExit(status)


def _forget_interrupted_text() -> None:
    """Keep Python from ending with SIGINT in place of the exit status.

    Where Ctrl-C interrupts a text given to `exec` (dataclasses are made so, on import), CPython under `-m` kills
    the program with SIGINT at its end, although the interrupt was handled; the next text that is executed clears
    that (`_Py_UnhandledKeyboardInterrupt` in Python/pythonrun.c).
    """
    exec("")


def _stop_politely() -> None:
    """Make SIGTERM, a closed terminal and Ctrl-Break act like Ctrl-C, unless they are ignored (`nohup`)."""

    def stop(number: int, frame: FrameType | None) -> None:
        if _would_be_swallowed(frame):
            again = threading.Timer(AGAIN_S, _send_again, (number,))
            again.daemon = True
            again.start()
            return
        end_requested.set()
        raise KeyboardInterrupt("" if number == signal.SIGINT else signal.Signals(number).name)

    defaults = {signal.SIG_DFL, signal.default_int_handler}
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in defaults:
            signal.signal(number, stop)


def _send_again(number: int) -> None:
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        os.kill(os.getpid(), number)  # which also wakes the main thread, unlike a signal to this one


def _would_be_swallowed(frame: FrameType | None) -> bool:
    """Whether Python is in a finaliser or a weak-reference callback, which swallow exceptions."""
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_code.co_filename == weakref.__file__:
            return True
        frame = frame.f_back
    return False


def _run() -> int:
    from liveptv.cli import run_command_line

    return run_command_line(sys.argv[1:])


if __name__ == "__main__":
    main()
