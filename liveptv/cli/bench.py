"""The command `bench`: measures how fast liveptv is on this computer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Overwrite, Settings
from liveptv.config import settings_only
from liveptv.files import writable
from stream.errors import ConfigurationError
from stream.unfinished_files import written_beside

KINDS = ("engine", "latency")
WAYS = ("predicted_frames", "predicted", "searched", "ghosts")
ENGINE_SECONDS = 3.0
LATENCY_SECONDS, LEAST_LATENCY_SECONDS = 30.0, 5.0


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel="This computer")(exiting(bench))


def bench(
    what: Annotated[str, typer.Argument(help=f"what to measure: {', '.join(KINDS)}")],
    seconds: Annotated[
        float | None, typer.Option(help="latency: duration, s (30); engine: time per case, s (3)", min=0.1)
    ] = None,
    rate: Annotated[
        float, typer.Option(help="latency: frame rate of the camera, frames/s", min=1.0, max=1000.0)
    ] = 60.0,
    particles: Annotated[int, typer.Option(help="latency: particles in the image", min=0)] = 30,
    models: Annotated[
        list[Path] | None,
        typer.Option("-m", "--model", help="network, .onnx; engine: may be repeated"),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(help="image sizes, such as 512x512,1440x2560; latency: one", metavar="HxW,HxW"),
    ] = None,
    large: Annotated[
        bool, typer.Option(help="engine: also time a large network with random weights (needs torch)")
    ] = True,
    settings: Settings = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the results to this file")] = None,
    picture: Annotated[Path | None, typer.Option(help="latency: write a figure (.png, .svg, .pdf)")] = None,
    overwrite: Overwrite = False,
) -> int:
    """Measure the speed on this computer: of detection on every back end, or the latency of the closed loop."""
    if what not in KINDS:
        raise ConfigurationError(f"there is no benchmark {what!r}; choose one of {', '.join(KINDS)}")
    if settings and what != "latency":
        raise ConfigurationError(
            "--set works with bench latency only; bench engine tries all settings itself"
        )
    for path in (json_file, picture):
        writable(path, overwrite)
    if what == "engine":
        rows = _engine(seconds or ENGINE_SECONDS, models or [], sizes, large)
    else:
        seconds = max(LEAST_LATENCY_SECONDS, seconds or LATENCY_SECONDS)
        rows = _latency(seconds, rate, particles, models or [], sizes, settings or [], picture)
    if json_file is not None:
        with written_beside(json_file, overwrite=overwrite) as part:
            part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def _say(text: str) -> None:
    console.print(escape(text), soft_wrap=True)


def _parsed(sizes: str) -> list[tuple[int, int]]:
    from liveptv.bench.engine import parse_sizes

    try:
        return parse_sizes(sizes)
    except ValueError as error:
        raise ConfigurationError(
            f"--sizes must look like 512x512,1440x2560 (height x width): {error}"
        ) from error


def _engine(seconds: float, models: list[Path], sizes: str | None, large: bool) -> list[dict[str, Any]]:
    from engines.factory import check_model
    from liveptv.bench.engine import SIZES, Plan, default_models, measure_engines

    wanted = SIZES if sizes is None else _parsed(sizes)
    for model in models:
        check_model(model)
    named = {model.name: model for model in models} or default_models()
    rows = measure_engines(Plan(named, wanted, seconds=seconds, large=large), _say)
    for title in dict.fromkeys((row["model"], row["case"]) for row in rows):
        console.print(_engine_table(title, [row for row in rows if (row["model"], row["case"]) == title]))
    return rows


def _engine_table(title: tuple[str, str], rows: list[dict[str, Any]]) -> Table:
    title_text = f"{title[0]}, by {title[1]}"
    table = Table(title=title_text, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("back end", "pixels", "particles"):
        table.add_column(name, no_wrap=True)
    for name in ("at\nonce", "frames\n/s", "CPU\nms", "p50\nms", "p99\nms", "max\nms", "MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row['backend']} {row['precision'] if row['device'] == 'cpu' else row['device']}",
            f"{row['height']}x{row['width']}",
            f"{row['particles']}{' fit' if row['refine'] else ''}{_told(row)}",
            str(row["workers"]),
            *(f"{row[name]:.1f}" for name in ("frames_per_s", "cpu_ms_per_frame")),
            *(f"{row[f'latency_{name}_ms']:.1f}" for name in ("p50", "p99", "max")),
            f"{row['peak_memory_mib']:.0f}",
        )
    return table


def _told(row: dict[str, Any]) -> str:
    """Whether the tracker's predictions were used, in a case that is about them."""
    return f" {row['prediction']}" if "prediction" in row else ""


def _latency(
    seconds: float,
    rate: float,
    particles: int,
    models: list[Path],
    sizes: str | None,
    settings: list[str],
    picture: Path | None,
) -> list[dict[str, Any]]:
    from liveptv.bench.latency import SHAPE, measure_latency
    from liveptv.session.prediction_account import prediction_in_words

    shapes = [SHAPE] if sizes is None else _parsed(sizes)
    if len(models) > 1 or len(shapes) > 1:
        raise ConfigurationError("bench latency takes one model and one size")
    model = models[0] if models else None
    detector = settings_only(settings).detector.model_dump(exclude_unset=True)
    latency = measure_latency(seconds, rate, particles, _say, shape=shapes[0], model=model, settings=detector)
    rows = latency.rows()
    console.print(_latency_table(rows))
    console.print(_cost_table(latency.costs))
    last = rows[-1]
    console.print(
        f"frames from a decision to the first frame that shows it: median {last['p50_frames']}, 99 % "
        f"{last['p99_frames']}, "
        f"maximum {last['max_frames']}; {latency.lost} frames lost"
    )
    ways = {name: latency.detector[name] for name in WAYS if name in latency.detector}
    if words := prediction_in_words(latency.detector):
        console.print(words)
    if picture is not None:
        from liveptv.bench.latency_figure import latency_figure

        with written_beside(picture, overwrite=True) as part:
            latency_figure(latency).savefig(part)
    return [*rows, *latency.costs, *([{"part": "predictions", **ways}] if ways else [])]


def _cost_table(costs: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("processor time of", no_wrap=True)
    for name in ("ms per frame", "frames"):
        table.add_column(name, justify="right")
    for row in costs:
        table.add_row(row["part"], f"{row['cpu_ms']:.2f}", str(row["frames"]))
    return table


def _latency_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    for name in ("p50_ms", "p99_ms", "max_ms", "count"):
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        values = [f"{row[name]:.2f}" for name in ("p50_ms", "p99_ms", "max_ms")]
        table.add_row(row["stage"], *values, str(row["count"]))
    return table
