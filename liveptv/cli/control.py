"""The command `control`: what a controller would have done on a recorded run."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from liveptv.cli.console import console, warn
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Overwrite, Settings
from liveptv.files import writable
from stream.errors import ConfigurationError
from stream.unfinished_files import written_beside

SUFFIXES = (".csv", ".jsonl")


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel="Recorded data")(exiting(control))


def control(
    tracks: Annotated[Path, typer.Argument(help="trajectory file of the run")],
    experiment: Annotated[
        Path, typer.Argument(help="experiment file (.toml) with a controller or a protocol")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="table of the controller's commands: .csv or .jsonl")
    ] = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> int:
    """Replay a recorded run to a controller, and compare its commands with the recorded ones."""
    from liveptv.config import load_experiment
    from liveptv.foreign_code import controller_code
    from liveptv.session.builders.control import flow_follower
    from tracking.control.controllers import load_controller
    from tracking.control.reconsider import reconsider
    from tracking.trajectories.control_record import read_control
    from tracking.trajectories.file import TrajectoryFile

    if output is not None and output.suffix.lower() not in SUFFIXES:
        raise ConfigurationError(f"{output} must end in {' or '.join(SUFFIXES)}")
    writable(output, overwrite)
    loaded = load_experiment(experiment, settings or [])
    if not loaded.is_controlled:
        raise ConfigurationError(f"{experiment} has neither a [controller] nor a [protocol] section; add one")
    for line in controller_code(loaded):
        warn(line)
    controller = load_controller(loaded.controller, loaded.protocol, loaded.limits.watchdog_s)
    flow = flow_follower(loaded, in_thread=False)
    with TrajectoryFile(tracks) as file:
        rows = [decision.row() for decision in reconsider(file, controller, flow)]
    recorded = Counter(
        str(entry.get("command")) for entry in read_control(tracks) if entry["kind"] == "command"
    )
    would = Counter(row["command"] for row in rows)
    for kind in sorted({*recorded, *would}):
        console.print(f"{kind:>14}  recorded {recorded[kind]:5d}   {controller.name} {would[kind]:5d}")
    if not would:
        console.print(f"{controller.name} would have sent no commands")
    if output is not None:
        with written_beside(output, overwrite=overwrite) as part:
            _write(part, rows)
    return 0


def _write(output: Path, rows: list[dict[str, Any]]) -> None:
    known = [{name: value for name, value in row.items() if not _is_nan(value)} for row in rows]
    with output.open("w", encoding="utf-8", newline="") as file:
        if output.suffix.lower() == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in known)
            return
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(file, names or ["frame", "time_s", "command", "value"])
        writer.writeheader()
        writer.writerows(known)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
