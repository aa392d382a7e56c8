"""Builds the command line from its parts and turns errors into one line and an exit status."""

from __future__ import annotations

import typer
from rich.markup import escape

from liveptv import __version__
from liveptv.cli import (
    bench,
    calibration,
    control,
    engine,
    evaluation,
    files,
    keys,
    live,
    offline,
    scan,
    training,
    watch,
)
from liveptv.cli.console import errors
from stream.errors import ConfigurationError, LivePTVError

DONE, FAILED, USAGE = 0, 1, 2

app = typer.Typer(
    name="liveptv",
    help="Live 3D particle tracking velocimetry on a microscope.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
live.register(app)
scan.register(app)
calibration.register(app)
training.register(app)
offline.register(app)
evaluation.register(app)
files.register(app)
watch.register(app)
bench.register(app)
control.register(app)
engine.register(app)
keys.register(app)


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
    except (KeyboardInterrupt, typer.Abort):
        return _say("stopped by the user", FAILED)
    except Exception as error:
        message = _usage_message(error)
        if message is None:
            raise
        return _say(message, USAGE)
    return status if isinstance(status, int) else DONE


def _usage_message(error: Exception) -> str | None:
    """What typer has to say of a wrong command line; None for any other error.

    Its exceptions are known by their method: which module they live in has changed with its versions.
    """
    if not hasattr(error, "format_message"):
        return None
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "") or "liveptv"
    return f"{str(error.format_message()).rstrip('.')}; see {command} --help"


def _say(error: object, status: int) -> int:
    text = " ".join(str(error).split())
    errors.print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True)
    return status
