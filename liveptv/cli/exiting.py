"""Turns what a command returns into the exit status of the program."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import typer

Parameters = ParamSpec("Parameters")


def exiting(command: Callable[Parameters, int]) -> Callable[Parameters, None]:
    """Wrap a command that returns its exit status."""

    @functools.wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> None:
        raise typer.Exit(command(*arguments, **options))

    return run
