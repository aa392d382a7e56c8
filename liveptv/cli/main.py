"""Builds the command line from its parts and turns errors into one line and an exit status."""

from __future__ import annotations

import os
import sys

import click
import typer

from liveptv import __version__
from liveptv.cli import files, live, offline
from liveptv.cli.console import errors
from stream.errors import ConfigurationError, LivePTVError

DONE, FAILED, USAGE = 0, 1, 2

app = typer.Typer(
    name="liveptv",
    help="Live 3D particle tracking velocimetry on a microscope.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
live.register(app)
offline.register(app)
files.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"liveptv {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="say and exit"),
) -> None:
    """Live 3D particle tracking velocimetry on a microscope."""


def run_command_line(arguments: list[str]) -> int:
    """Run one command; returns the exit status."""
    try:
        status = app(arguments, standalone_mode=False)
    except ConfigurationError as error:
        return _say(error, USAGE)
    except LivePTVError as error:
        return _say(error, FAILED)
    except click.UsageError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        return _say(error.format_message(), FAILED)
    except (KeyboardInterrupt, click.Abort):
        return _say("stopped by the user", FAILED)
    except BrokenPipeError:
        # whoever read our output has left; the interpreter must not trip over it again when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status if isinstance(status, int) else DONE


def _say(error: object, status: int) -> int:
    text = " ".join(str(error).split())
    errors.print(f"[bold red]error:[/] {rich_escape(text)}", soft_wrap=True)
    return status


def rich_escape(text: str) -> str:
    """Keep rich from reading brackets in `text` as markup."""
    from rich.markup import escape

    return escape(text)
