"""The command `evaluate`: compares detections and trajectories with the true ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from liveptv.cli.console import console, errors
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Columns, Json, Overwrite, TablePixelSize
from liveptv.cli.trajectory_lines import track_lines
from liveptv.files import refuse_to_replace, writable
from stream.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from calibration.evaluation import AxisErrors, Evaluation
    from liveptv.track_scores import TrajectoryScores

PAGE = {".html", ".htm"}


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel="Recorded data")(exiting(evaluate))


def evaluate(
    truth: Annotated[Path, typer.Option(help="table of true positions")],
    found: Annotated[Path, typer.Option(help="table of detections or trajectories, or a trajectory file")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="report with tables and figures, .html")
    ] = None,
    gate_xy: Annotated[
        float, typer.Option(help="a match is at most this far away in x and y, um", min=1e-9)
    ] = 4.0,
    gate_z: Annotated[float, typer.Option(help="a match is at most this far away in z, um", min=1e-9)] = 30.0,
    gate_um: Annotated[
        float | None,
        typer.Option(help="volumes: a match is at most this far away in 3D, um", min=1e-9),
    ] = None,
    gate_voxels: Annotated[
        float | None,
        typer.Option(
            help="volumes: a match is at most so many voxels away in 3D; needs --voxel-size", min=1e-9
        ),
    ] = None,
    voxel_size: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", help="volumes: edges of a voxel along z, y, x, um"),
    ] = None,
    columns: Columns = None,
    truth_columns: Annotated[
        str | None,
        typer.Option(metavar="x=NAME[um],...", help="as --columns, for the table of true positions"),
    ] = None,
    pixel_size: TablePixelSize = None,
    as_json: Json = False,
    overwrite: Overwrite = False,
) -> int:
    """Compare detections with true positions, and trajectories if both tables have a column track or particle."""
    from calibration.evaluation import score
    from calibration.matching import match_tables
    from liveptv.tables.columns_option import Wanted, parse_columns
    from liveptv.track_scores import read_points, score_trajectories

    if output is not None:
        if output.suffix.lower() not in PAGE:
            raise ConfigurationError(f"the report is written as an .html file; {output} must end in .html")
        refuse_to_replace(output, truth, found)
        writable(output, overwrite)
    theirs, ours = parse_columns(truth_columns), parse_columns(columns)
    true_points, found_points = (
        read_points(path, Wanted(given, pixel_size, may_be_um=True), _say_aside)
        for path, given in ((truth, theirs), (found, ours))
    )
    _compare_first_frames(true_points, found_points, truth.name, found.name)
    if gate_um is not None or gate_voxels is not None or voxel_size is not None:
        from liveptv.cli.volume_scores import evaluate_volumes

        return evaluate_volumes(
            true_points, found_points, gate_um, gate_voxels, voxel_size, output, as_json=as_json
        )
    matched = match_tables(true_points, found_points, gate_xy_um=gate_xy, gate_z_um=gate_z)
    result = score(matched)
    tracks = score_trajectories(true_points, found_points, gate_xy, result.gate_z_um)
    if output is not None:
        from liveptv.reports.evaluation_page import write_evaluation_page

        write_evaluation_page(output, result, matched, tracks, truth=truth.name, found=found.name)
    if as_json:
        plain = result.to_dict() | ({} if tracks is None else {"tracks": tracks.to_dict()})
        typer.echo(json.dumps(plain, indent=2))
        return 0
    _say(result, tracks)
    if output is not None:
        console.print(f"written to {escape(str(output))}", soft_wrap=True)
    return 0


def _say_aside(text: str) -> None:
    """Print a remark to standard error, because standard output may be JSON."""
    errors.print(escape(text), soft_wrap=True)


def _compare_first_frames(
    truth: Mapping[str, npt.NDArray[Any]],
    found: Mapping[str, npt.NDArray[Any]],
    truth_name: str,
    found_name: str,
) -> None:
    """Warn where one table seems to count its frames from 1 and the other from 0."""
    if not (len(truth["frame"]) and len(found["frame"])):
        return
    ends = [(int(table["frame"].min()), int(table["frame"].max())) for table in (truth, found)]
    (first, last), (other_first, other_last) = ends
    if abs(first - other_first) == 1 and abs(last - other_last) == 1 and {first, other_first} == {0, 1}:
        _say_aside(
            f"the frames of {truth_name} are {first} to {last}, of {found_name} {other_first} to {other_last}: "
            "if one of them counts from 1, pass for example --columns frame=NAME[1]"
        )


def _say(result: Evaluation, tracks: TrajectoryScores | None) -> None:
    console.print(
        f"{result.frames} frames, {result.true_particles} true particles, {result.detections} detections\n"
        f"[bold]{_percent(result.missed)} missed[/] (recall {_fraction(1 - result.missed)}), "
        f"[bold]{_percent(result.false)} false[/] (precision {_fraction(1 - result.false)})"
    )
    console.print(_score_table(result))
    if result.by_depth:
        low, high = result.by_depth[0].from_um, result.by_depth[-1].to_um
        console.print(
            f"[bold]{100 * result.depth_covered:.0f} %[/] of the depths from {low:.0f} to {high:.0f} um covered "
            "(recall at least half the best)"
        )
    if tracks is not None:
        console.print(track_lines(tracks))


def _score_table(result: Evaluation) -> Table:
    """Fits 80 columns."""
    axes = list(result.errors)
    stated = any(math.isfinite(errors.calibration) for errors in result.errors.values())
    table = Table(box=None, pad_edge=False)
    table.add_column("nearest\nneighbour", no_wrap=True)
    for name in ("\nnumber", "\nmissed", *(f"{axis} rms\n(um)" for axis in axes)):
        table.add_column(name, justify="right")
    if stated:
        for name in ("rms/SE", "median/SE"):
            table.add_column(f"{name}\n{', '.join(axes)}", justify="right")

    def add(name: str, particles: int, missed: float, errors: dict[str, AxisErrors]) -> None:
        cells = [name, f"{particles}", _percent(missed), *(_number(errors[axis].rms_um) for axis in axes)]
        if stated:
            cells.append(" ".join(_ratio(errors[axis].calibration) for axis in axes))
            cells.append(" ".join(_ratio(errors[axis].calibration_robust) for axis in axes))
        table.add_row(*cells)

    add("all", result.true_particles, result.missed, result.errors)
    add("lone", result.lone.particles, result.lone.missed, result.lone.errors)
    for group in result.by_distance:
        add(_range(group.from_um, group.to_um), group.particles, group.missed, group.errors)
    return table


def _range(low_um: float, high_um: float) -> str:
    return f"> {low_um:g} um" if math.isinf(high_um) else f"{low_um:g}-{high_um:g} um"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:#.3g}".rstrip(".")


def _fraction(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _ratio(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
