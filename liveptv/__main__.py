"""Entry of the command line: makes output and signals safe, then hands over to `liveptv.cli`."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from types import FrameType

from liveptv.terminal import make_output_safe


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
    raise SystemExit(status)


def _stop_politely() -> None:
    """Let `kill`, a closed terminal and Ctrl-Break do what Ctrl-C does, unless they are ignored (`nohup`)."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, stop)


def _run() -> int:
    from liveptv.cli import run_command_line

    return run_command_line(sys.argv[1:])


if __name__ == "__main__":
    main()
