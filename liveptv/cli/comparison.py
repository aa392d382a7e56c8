"""The command that compares two trajectory files: `compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Json
from liveptv.terminal import is_unicode


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel="Files")(exiting(compare))


def compare(
    a: Annotated[Path, typer.Argument(help="trajectory file A, .h5")],
    b: Annotated[Path, typer.Argument(help="trajectory file B, .h5, such as a replay of A")],
    within: Annotated[
        float | None,
        typer.Option(
            help="distance in the plane within which two detections are one particle, um; left out: two pixels",
            min=1e-6,
            max=1e6,
        ),
    ] = None,
    must_be_identical: Annotated[
        bool, typer.Option("--must-be-identical", help="exit with status 1 unless all rows are identical")
    ] = False,
    as_json: Json = False,
) -> int:
    """Show what differs between two trajectory files: settings, frames, detections, tracks, commands."""
    from liveptv.comparing.comparison import compare as compared
    from liveptv.comparing.words import in_words

    found = compared(a, b, within)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=not is_unicode(), default=str))
    else:
        for name, text in in_words(found):
            console.print(f"[dim]{name:>11}[/]  {escape(text)}", soft_wrap=True)
    return int(must_be_identical and not found["identical_rows"])
