"""The command that plans an experiment: `plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Json, Overwrite, Settings
from liveptv.files import writable
from liveptv.terminal import is_unicode
from stream.errors import ConfigurationError


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel="Live runs")(exiting(plan))


def plan(
    experiment: Annotated[
        Path, typer.Argument(help="experiment file (.toml), with what is wanted in [plan]")
    ],
    settings: Settings = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="write the [protocol] that does it, .toml", metavar="FILE"),
    ] = None,
    as_json: Json = False,
    overwrite: Overwrite = False,
) -> int:
    """Say how many frames and which slices an experiment takes for a wanted error, and what limits it."""
    from liveptv.config import load_experiment
    from liveptv.planning.planned import plan_of
    from liveptv.planning.words import in_words, protocol_text
    from stream.unfinished_files import written_beside

    if output is not None:
        if output.suffix.lower() != ".toml":
            raise ConfigurationError(f"{output} is not .toml; the protocol is written as .toml")
        writable(output, overwrite)
    found = plan_of(load_experiment(experiment, settings or ()))
    if output is not None:
        with written_beside(output, overwrite=overwrite) as part:
            part.write_text(protocol_text(found), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=not is_unicode()))
        return 0
    for name, text in in_words(found):
        console.print(f"[dim]{name:>17}[/]  {escape(text)}", soft_wrap=True)
    if output is not None:
        console.print(escape(str(output)), soft_wrap=True)
    return 0
