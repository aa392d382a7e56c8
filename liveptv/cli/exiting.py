"""Turns what a command returns into the exit status of the program."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

import typer

Parameters = ParamSpec("Parameters")


def exiting(command: Callable[Parameters, int], *, claims_output: bool = True) -> Callable[Parameters, None]:
    """Wrap a command that returns its exit status. Its option `output`, if it is a file, is locked for its time."""

    @functools.wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> None:
        output = options.get("output")
        with contextlib.ExitStack() as stack:
            if claims_output and isinstance(output, Path) and output.parent.is_dir():
                from liveptv.files import claimed

                stack.enter_context(claimed(output, f"liveptv {command.__name__}"))
            status = command(*arguments, **options)
        raise typer.Exit(status)

    return run
