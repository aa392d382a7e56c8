"""Commands that show what is in a file: `info`, `report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Json, Overwrite
from liveptv.terminal import is_unicode
from stream.errors import ConfigurationError, OutputError

MOST_LISTED = 12
NAME_COLUMNS = 40


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel="Files")(exiting(info))
    app.command(rich_help_panel="Files")(exiting(report))


def info(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="trajectory file, calibration, network, width curve, detection table, recording or its frame table"
        ),
    ] = None,
    devices: Annotated[
        bool, typer.Option("--devices", help="list the available microscopes and device adapters")
    ] = False,
    as_json: Json = False,
) -> int:
    """Show what a file contains, or which devices are available."""
    from liveptv.workflows.inspect import describe_devices, describe_file

    if devices == (file is not None):
        raise ConfigurationError("give either a file or --devices")
    found = describe_devices() if file is None else describe_file(file)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=not is_unicode(), default=str))
        return 0
    console.print(_tree(found))
    return 0


def report(
    file: Annotated[Path, typer.Argument(help="trajectory file or calibration")],
    overwrite: Overwrite = False,
) -> int:
    """Make the report of a trajectory file or a calibration: a page and its figures."""
    from calibration.calibration_file import is_calibration
    from calibration.volumes.file import is_volume_calibration
    from liveptv.files import RunFiles
    from liveptv.reports.calibration_page import write_calibration_report
    from liveptv.reports.page import write_report
    from liveptv.reports.volume_calibration_page import write_volume_report

    files = RunFiles.beside(file)
    if files.report.exists() and not overwrite:
        raise OutputError(f"{files.report} exists; pass --overwrite to replace it")
    if is_calibration(file):
        made = write_calibration_report(file)
    elif is_volume_calibration(file):
        made = write_volume_report(file)
    else:
        report = write_report(files)
        made = (report.page, *report.figures)
    for path in made:
        console.print(escape(str(path)), soft_wrap=True)
    return 0


def _tree(found: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", max_width=NAME_COLUMNS)
    table.add_column(overflow="fold")
    for name, value in _flat(found):
        table.add_row(escape(name), escape(value))
    return table


def _listed(values: list[Any]) -> str:
    """A short list in full; for a long one its length and, for numbers, its range."""
    whole = "(--json lists them)"
    if any(isinstance(item, (dict, list)) for item in values):
        return f"{len(values)} {whole}"
    if len(values) <= MOST_LISTED:
        return ", ".join(_plain(item) for item in values) or "-"
    if all(isinstance(item, (int, float)) for item in values):
        return f"{len(values)}, from {min(values):.5g} to {max(values):.5g} {whole}"
    return f"{len(values)}, the first {values[0]} {whole}"


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, inner in value.items():
        if isinstance(inner, dict):
            rows += _flat(inner, f"{prefix}{name}.")
        elif isinstance(inner, list):
            rows.append((f"{prefix}{name}", _listed(inner)))
        else:
            rows.append((f"{prefix}{name}", _plain(inner)))
    return rows


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.7g}" if isinstance(value, float) else str(value)
