"""Builds the command line from its parts and turns errors into one line and an exit status."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import typer
from rich.markup import escape

from liveptv import __version__
from liveptv.cli import (
    batch,
    bench,
    calibration,
    comparison,
    control,
    diffusion,
    engine,
    evaluation,
    files,
    flow,
    keys,
    lag,
    live,
    offline,
    plan,
    recalibration,
    record,
    scan,
    training,
    warmup,
    watch,
)
from liveptv.cli.console import errors
from liveptv.end_requested import end_requested
from liveptv.kernel_cache import take_over_kernels
from stream.errors import ConfigurationError, LivePTVError
from stream.safe_text import storable

DONE, FAILED, USAGE = 0, 1, 2
TRACEBACK = "LIVEPTV_TRACEBACK"

app = typer.Typer(
    name="liveptv",
    help="Live 3D particle tracking velocimetry on a microscope. To try it, run: liveptv demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
live.register(app)
watch.register(app)
record.register(app)
scan.register(app)
lag.register(app)
calibration.register(app)
training.register(app)
recalibration.register(app)
offline.register(app)
batch.register(app)
evaluation.register(app)
files.register(app)
comparison.register(app)
flow.register(app)
plan.register(app)
diffusion.register(app)
bench.register(app)
control.register(app)
engine.register(app)
warmup.register(app)
keys.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"liveptv {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Live 3D particle tracking velocimetry on a microscope."""


def run_command_line(arguments: list[str]) -> int:
    """Run one command; returns the exit status."""
    take_over_kernels()
    try:
        status = app(arguments, standalone_mode=False)
    except ConfigurationError as error:
        return _say(error, USAGE)
    except LivePTVError as error:
        return _say(error, FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return _say("stopped by the user", FAILED)
    except OSError as error:
        if error.filename is None:
            return _fault(error)
        reason = str(error.strerror or error).lower()
        return _say(f"cannot use {os.fspath(error.filename)}: {reason}", FAILED)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported in one line
        message = _usage_message(error)
        if message is None:
            return _fault(error)
        return _say(message, USAGE) if message else USAGE
    return status if isinstance(status, int) else DONE


def _fault(error: Exception) -> int:
    if end_requested.is_set():
        return _say(_stopped(error), FAILED)
    if os.environ.get(TRACEBACK):
        raise error
    return _say(_unexpected(error), FAILED)


def _stopped(error: Exception) -> Exception:
    """The error of a program that was stopped, with the notes of what it was doing: what was kept, and where."""
    stopped = LivePTVError("stopped by the user")
    for note in getattr(error, "__notes__", ()):
        stopped.add_note(note)
    return stopped


def _unexpected(error: Exception) -> str:
    """One line for an error that nobody expected: what was raised and where, so that it can be reported."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"this is a bug in liveptv, please report it: {what}{place} ({TRACEBACK}=1 shows the traceback)"


def _usage_message(error: Exception) -> str | None:
    """What typer says about a wrong command line, "" if it has printed the help instead; None for other errors.

    Its exceptions are recognised by their method, because the module that they live in differs between versions.
    """
    if not hasattr(error, "format_message"):
        return None
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "") or "liveptv"
    text = str(error.format_message()).rstrip(".")
    return f"{text[:1].lower()}{text[1:]} (see {command} --help)" if text else ""


def _say(error: object, status: int) -> int:
    """Print an error and the notes on it in one line."""
    text = storable(" ".join("; ".join([str(error), *getattr(error, "__notes__", ())]).split()))
    errors.print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True)
    return status
