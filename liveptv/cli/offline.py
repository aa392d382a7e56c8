"""Commands that work on files, without stages or sockets: `detect`, `track`, `evaluate`, `export`, `recover`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Bright, Dark, FrameRate, Json, Model, Overwrite, PixelSize, Settings
from liveptv.config import revised, settings_only
from liveptv.files import refuse_to_replace
from stream.errors import LivePTVError, OutputError

if TYPE_CHECKING:
    from liveptv.track_scores import TrajectoryScores


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(exiting(detect))
    app.command()(exiting(track))
    app.command()(exiting(evaluate))
    app.command()(exiting(export))
    app.command()(exiting(recover))


def detect(
    images: Annotated[Path, typer.Argument(help="TIFF, OME-TIFF, OME-Zarr, HDF5 or a folder of images")],
    output: Annotated[Path, typer.Option("-o", "--output", help="table: .csv, .parquet or .h5")],
    model: Model = None,
    bright: Bright = None,
    dark: Dark = None,
    pixel_size: PixelSize = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> int:
    """Find the particles in recorded images."""
    from liveptv.offline import detect_images
    from liveptv.tables import DetectionTableWriter

    given = {"model": model, "bright": bright, "dark": dark}
    detector = revised(settings_only(settings or []), detector=given).detector
    refuse_to_replace(output, images, detector.model, detector.bright, detector.dark)
    with DetectionTableWriter(output, overwrite) as table, progress_bar("detecting") as bar:
        frames = 0
        try:
            for detections, expected in detect_images(images, detector, pixel_size_um=pixel_size):
                table.append(detections)
                frames += 1
                bar.update(bar.task_ids[0], completed=frames, total=expected)
        except LivePTVError:
            if frames == 0:
                table.discard()
            raise
    _done(f"{table.rows} particles in {frames} frames written to {output}")
    return 0


def track(
    detections: Annotated[Path, typer.Argument(help="table of detections: .csv, .parquet or .h5")],
    output: Annotated[Path, typer.Option("-o", "--output", help="trajectory file")],
    frame_rate: FrameRate = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> int:
    """Link detections into trajectories."""
    from liveptv.offline import track_table

    loaded = revised(
        settings_only(settings or []),
        run={"output": output, "overwrite": overwrite},
        tracker={"frame_rate_hz": frame_rate},
    )
    refuse_to_replace(output, detections)
    statistics = track_table(detections, loaded)
    _done(
        f"{statistics['tracks_counted']:.0f} trajectories (median length {statistics['median_length']:.0f}) "
        f"in {statistics['frames']:.0f} frames written to {output}"
    )
    return 0


def evaluate(
    truth: Annotated[Path, typer.Option(help="table of the true positions")],
    found: Annotated[Path, typer.Option(help="table of detections or of trajectories, or trajectory file")],
    gate_xy: Annotated[float, typer.Option(help="farthest match in the plane, um", min=1e-9)] = 4.0,
    gate_z: Annotated[float, typer.Option(help="farthest match in depth, um", min=1e-9)] = 30.0,
    as_json: Json = False,
) -> int:
    """Score detections against a truth, and trajectories where both have them (column track or particle)."""
    from calibration.evaluation import evaluate as score
    from liveptv.track_scores import read_points, score_trajectories

    true_points, found_points = read_points(truth), read_points(found)
    result = score(true_points, found_points, gate_xy_um=gate_xy, gate_z_um=gate_z)
    tracks = score_trajectories(true_points, found_points, gate_xy, result.gate_z_um)
    scores = result.to_dict()
    if tracks is not None:
        scores["tracks"] = tracks.to_dict()
    if as_json:
        typer.echo(json.dumps(scores, indent=2))
        return 0
    console.print(
        f"{result.frames} frames, {result.true_particles} true particles, {result.detections} detections: "
        f"[bold]{100 * result.missed:.1f} % missed[/], [bold]{100 * result.false:.1f} % false[/]"
    )
    console.print(_score_table(scores))
    if tracks is not None:
        console.print(_track_lines(tracks))
    return 0


def export(
    tracks: Annotated[Path, typer.Argument(help="trajectory file")],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help=".csv, .parquet, .xml (TrackMate), .vtp (ParaView), .rrd (Rerun)"
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="FORMAT", help="not the suffix's format: rerun, csv ..."),
    ] = None,
    predicted: Annotated[bool, typer.Option("--predicted", help="rows without a detection as well")] = False,
    flagged: Annotated[bool, typer.Option("--flagged", help="unconfirmed and double tracks as well")] = False,
    overwrite: Overwrite = False,
) -> int:
    """Write trajectories for other programs."""
    from tracking.export import export as convert

    report = convert(
        tracks, output, to=to, overwrite=overwrite, include_predicted=predicted, include_flagged=flagged
    )
    _done(f"{report.rows} rows of {report.tracks} trajectories written to {report.output}")
    return 0


def recover(file: Annotated[Path, typer.Argument(help="trajectory file")]) -> int:
    """Make a trajectory file whole again whose writer was killed."""
    from liveptv.application import add_control_record
    from liveptv.files import RunFiles
    from tracking.packing import pack
    from tracking.recover import recover as mend

    report = mend(file)
    add_control_record(RunFiles.beside(file))
    if report.already_whole:
        _done(f"{file} is whole: {report.frames} frames, {report.rows} rows")
        return 0
    try:
        pack(file)
    except OutputError as error:
        _done(str(error))
    _done(
        f"{file} is whole again: {report.frames} frames, {report.rows} rows; "
        f"cut {report.frames_cut} frames and {report.rows_cut} rows that were never committed"
    )
    return 0


def _done(text: str) -> None:
    console.print(escape(text), soft_wrap=True)


class _Bar(Progress):
    """A progress bar with one task."""


def progress_bar(what: str) -> _Bar:
    """A bar on a terminal, nothing elsewhere."""
    bar = _Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    bar.add_task(what, total=None)
    return bar


def _score_table(scores: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("particles", "nearest neighbour", "number", "missed"):
        table.add_column(name, justify="left" if name == "particles" else "right")
    axes = [axis for axis in ("x", "y", "z") if axis in scores["errors"]]
    for axis in axes:
        table.add_column(f"{axis} rms (um)", justify="right")
    for name, group in _groups(scores):
        cells = [name, _range(group), str(group["particles"]), _percent(group["missed"])]
        cells += [_number(group["errors"].get(axis, {}).get("rms_um")) for axis in axes]
        table.add_row(*cells)
    return table


def _track_lines(scores: TrajectoryScores) -> str:
    tracks, links = scores.tracks, scores.links
    return (
        f"{tracks.true_tracks} true trajectories, {tracks.found_tracks} found: alpha [bold]{tracks.alpha:.3f}[/], "
        f"beta [bold]{tracks.beta:.3f}[/], JSC {tracks.jsc:.3f}, JSC of trajectories {tracks.jsc_tracks:.3f}\n"
        f"{links.found_links} links: precision [bold]{links.precision:.4f}[/], recall [bold]{links.recall:.4f}[/], "
        f"{links.fragments:.2f} fragments a trajectory"
    )


def _groups(scores: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    everyone = {
        "from_um": 0.0,
        "to_um": None,
        "particles": scores["true_particles"],
        "missed": scores["missed"],
        "errors": scores["errors"],
    }
    yield "all", everyone
    yield "lone", scores["lone"]
    for group in scores["by_distance"]:
        yield "", group


def _range(group: dict[str, Any]) -> str:
    low, high = group["from_um"], group["to_um"]
    if high is None:
        return "any" if not low else f"> {low:g} um"
    return f"{low:g} - {high:g} um"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
