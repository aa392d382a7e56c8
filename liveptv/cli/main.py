"""Builds the command line from its parts and turns errors into one line and an exit status."""

from __future__ import annotations

import typer
from rich.markup import escape

from liveptv import __version__
from liveptv.cli import files, live, offline
from liveptv.cli.console import errors
from stream.errors import ConfigurationError, LivePTVError

DONE, FAILED, USAGE = 0, 1, 2
INTERRUPTED = 130

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
        app(arguments)
    except ConfigurationError as error:
        return _say(error, USAGE)
    except LivePTVError as error:
        return _say(error, FAILED)
    except SystemExit as exit_:
        if exit_.code == INTERRUPTED:
            return _say(LivePTVError("stopped by the user"), FAILED)
        return exit_.code if isinstance(exit_.code, int) else DONE
    return DONE


def _say(error: Exception, status: int) -> int:
    text = " ".join(str(error).split())
    errors.print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True)
    return status
