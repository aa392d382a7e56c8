"""The command `lag`: how far the focus drive is behind its commanded position while it scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Settings


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel="Calibration")(exiting(lag))


def lag(
    experiment: Annotated[
        Path, typer.Argument(help=r"experiment file (.toml) with \[microscope] and \[volume] sections")
    ],
    pairs: Annotated[
        int, typer.Option("--pairs", min=1, max=1000, help="upward and downward volumes to average")
    ] = 10,
    settings: Settings = None,
) -> int:
    """Measure, with resting beads, how far the focus drive lags while it scans volumes."""
    from liveptv.config import load_experiment
    from liveptv.workflows.lag import described, run_lag, settings_of

    found = run_lag(
        load_experiment(experiment, settings or []),
        pairs=pairs,
        on_note=lambda line: console.print(f"[dim]{escape(line)}[/]", soft_wrap=True),
    )
    for line in described(found):
        console.print(escape(line), soft_wrap=True)
    for line in settings_of(found):
        console.print(escape(line), soft_wrap=True, style="bold")
    return 0
