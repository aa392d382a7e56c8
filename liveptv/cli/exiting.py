"""Wraps a command: locks its output file and turns its return value into the exit status."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

import typer

from stream.errors import LivePTVError

Parameters = ParamSpec("Parameters")


class StoppedByUserError(LivePTVError):
    """Ctrl-C or SIGTERM ended a command before it was done."""


def exiting(command: Callable[Parameters, int], *, claims_output: bool = True) -> Callable[Parameters, None]:
    """Wrap a command that returns its exit status. Its option `output`, if it is a file, is locked meanwhile.

    Ctrl-C becomes a `StoppedByUserError` with the same notes, because typer would end the program silently.
    """

    @functools.wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> None:
        output = options.get("output")
        try:
            with contextlib.ExitStack() as stack:
                if claims_output and isinstance(output, Path) and output.parent.is_dir():
                    from liveptv.files import claimed

                    stack.enter_context(claimed(output, f"liveptv {command.__name__}"))
                status = command(*arguments, **options)
        except KeyboardInterrupt as interrupt:
            how = f" ({interrupt})" if str(interrupt) else ""
            stopped = StoppedByUserError(f"stopped by the user{how}")
            for note in getattr(interrupt, "__notes__", ()):
                stopped.add_note(note)
            raise stopped from interrupt
        raise typer.Exit(status)

    return run
