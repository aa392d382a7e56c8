"""The command `bench`: what this program can do on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Overwrite
from liveptv.files import writable
from stream.errors import ConfigurationError

KINDS = ("latency",)


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(exiting(bench))


def bench(
    what: Annotated[str, typer.Argument(help=f"what to measure: {', '.join(KINDS)}")],
    seconds: Annotated[float, typer.Option(help="how long to measure", min=5.0)] = 30.0,
    rate: Annotated[float, typer.Option(help="frames/s of the camera", min=1.0, max=1000.0)] = 60.0,
    particles: Annotated[int, typer.Option(help="particles in view", min=0)] = 30,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the rows to this file")] = None,
    picture: Annotated[Path | None, typer.Option(help="draw it (.png, .svg, .pdf)")] = None,
    overwrite: Overwrite = False,
) -> int:
    """Measure how fast this machine is: `latency`, the closed loop from the camera to the first affected frame."""
    if what not in KINDS:
        raise ConfigurationError(f"bench {what!r} is not known; measure one of {', '.join(KINDS)}")
    for path in (json_file, picture):
        writable(path, overwrite)
    from liveptv.bench.latency import measure_latency

    latency = measure_latency(
        seconds, rate, particles, lambda text: console.print(escape(text), soft_wrap=True)
    )
    rows = latency.rows()
    console.print(_table(rows))
    last = rows[-1]
    console.print(
        f"frames from the decision to the first affected: median {last['p50_frames']}, 99 % {last['p99_frames']}, "
        f"most {last['max_frames']}; {latency.lost} frames lost"
    )
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if picture is not None:
        from liveptv.bench.latency_picture import latency_picture

        latency_picture(latency).savefig(picture)
    return 0


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    for name in ("p50_ms", "p99_ms", "max_ms", "count"):
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        values = [f"{row[name]:.2f}" for name in ("p50_ms", "p99_ms", "max_ms")]
        table.add_row(row["stage"], *values, str(row["count"]))
    return table
