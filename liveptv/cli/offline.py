"""Commands that work on files in one process: `detect`, `track`, `export`, `recover`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from liveptv.cli.console import console, warn
from liveptv.cli.exiting import exiting
from liveptv.cli.options import (
    Axes,
    Bright,
    Columns,
    Dark,
    FrameRate,
    ImportedFrameRate,
    ImportedPixelSize,
    LengthUnit,
    Model,
    Overwrite,
    PixelSize,
    Settings,
    TablePixelSize,
    ZStep,
)
from liveptv.config import revised, settings_only
from liveptv.files import refuse_to_replace
from stream.errors import ConfigurationError, LivePTVError


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel="Recorded data")(exiting(detect))
    app.command(rich_help_panel="Recorded data")(exiting(track))
    app.command(rich_help_panel="Files")(exiting(export))
    app.command(rich_help_panel="Files")(exiting(recover))


def detect(
    images: Annotated[Path, typer.Argument(help="images: TIFF, OME-TIFF, OME-Zarr, HDF5 or a folder")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="table of detections: .csv, .parquet or .h5")
    ],
    model: Model = None,
    bright: Bright = None,
    dark: Dark = None,
    pixel_size: PixelSize = None,
    axes: Axes = None,
    z_step: ZStep = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> int:
    """Detect particles in recorded images or volumes."""
    from liveptv.foreign_code import detector_code
    from liveptv.tables import DetectionTableWriter
    from liveptv.workflows.offline import detect_images

    given = {"model": model, "bright": bright, "dark": dark}
    detector = revised(settings_only(settings or []), detector=given).detector
    refuse_to_replace(output, images, detector.model, detector.bright, detector.dark, detector.file)
    for line in detector_code(detector):
        _done(line)
    with (
        DetectionTableWriter(output, overwrite) as table,
        progress_bar("starting (about a minute the first time)") as bar,
    ):
        for detections, expected in detect_images(
            images, detector, pixel_size_um=pixel_size, axes=axes, z_step_um=z_step, say=warn
        ):
            table.frames_expected = expected
            table.append(detections)
            bar.update(bar.task_ids[0], description="detecting", completed=table.frames, total=expected)
    _done(f"{table.rows} particles in {table.frames} frames written to {output}")
    return 0


def track(
    detections: Annotated[
        Path,
        typer.Argument(
            help="table of detections: .csv, .parquet or .h5; or a trajectory file, to track it again"
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="trajectory file, .h5")],
    frame_rate: FrameRate = None,
    columns: Columns = None,
    pixel_size: TablePixelSize = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> int:
    """Link detections into trajectories: those of a table, or again those of a trajectory file."""
    from liveptv.tables.columns_option import Wanted, parse_columns
    from liveptv.track_scores import is_trajectory_file
    from liveptv.workflows.offline import track_table

    refuse_to_replace(output, detections)
    if is_trajectory_file(detections):
        if columns is not None or pixel_size is not None:
            raise ConfigurationError(
                f"{detections} is a trajectory file, its columns and units are known; leave out --columns and "
                "--pixel-size"
            )
        if frame_rate is not None:
            raise ConfigurationError(
                f"{detections} is a trajectory file with times of its own; leave out --frame-rate"
            )
        return _track_again(detections, output, settings, overwrite)
    wanted = Wanted(parse_columns(columns), pixel_size)

    loaded = revised(
        settings_only(settings or []),
        run={"output": output, "overwrite": overwrite},
        tracker={"frame_rate_hz": frame_rate},
    )
    if "frame_rate_hz" not in loaded.tracker.model_fields_set:
        warn(
            f"{loaded.tracker.frame_rate_hz:g} frame/s assumed (--frame-rate); times and velocities depend on it"
        )
    statistics = track_table(detections, loaded, wanted, say=_done, caution=warn)
    return _tracked(statistics, output)


def _track_again(tracks: Path, output: Path, settings: list[str] | None, overwrite: bool) -> int:
    from liveptv.workflows.retrack import retrack, settings_for

    loaded = revised(
        settings_for(tracks, settings),
        run={"output": output, "overwrite": overwrite},
    )
    return _tracked(retrack(tracks, loaded, caution=warn), output)


def _tracked(statistics: dict[str, float], output: Path) -> int:
    _done(
        f"{statistics['tracks_counted']:.0f} trajectories (median length {statistics['median_length']:.0f}) "
        f"in {statistics['frames']:.0f} frames written to {output}"
    )
    return 0


def export(
    tracks: Annotated[
        Path,
        typer.Argument(
            help="trajectory file, or one of another program: GEFF, TrackMate, flowtracks, .vtp, a table of tracks"
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help=".csv, .parquet, .geff, .xml (TrackMate), .vtp (ParaView), .rrd (Rerun); "
            ".h5 imports another program's file",
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="format, if the suffix does not say it: csv, geff, flowtracks, rerun ...",
        ),
    ] = None,
    predicted: Annotated[
        bool, typer.Option("--predicted", help="include predicted rows, which have no detection")
    ] = False,
    flagged: Annotated[
        bool, typer.Option("--flagged", help="include unconfirmed tracks and second detections")
    ] = False,
    frame_rate: ImportedFrameRate = None,
    pixel_size: ImportedPixelSize = None,
    length_unit: LengthUnit = None,
    columns: Columns = None,
    overwrite: Overwrite = False,
) -> int:
    """Convert trajectories for other programs, or from them."""
    from liveptv.tables.columns_option import Wanted, parse_columns
    from liveptv.workflows.interchange import convert

    report = convert(
        tracks,
        output,
        to=to,
        overwrite=overwrite,
        include_predicted=predicted,
        include_flagged=flagged,
        frame_rate_hz=frame_rate,
        pixel_size_um=pixel_size,
        length_unit=length_unit,
        wanted=Wanted(parse_columns(columns), pixel_size),
        say=warn,
    )
    _done(f"{report.rows} rows of {report.tracks} trajectories written to {report.output}")
    if report.lost:
        _done(f"not in it: {', '.join(report.lost)}")
    return 0


def recover(
    file: Annotated[Path, typer.Argument(help="trajectory file")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="write the repaired copy here and leave the file untouched"),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="also repair a file of another computer, whose run is certainly over"),
    ] = False,
) -> int:
    """Repair a trajectory file after a crash."""
    from liveptv.files import RunFiles
    from liveptv.workflows.run import add_control_record, missing_control_record
    from stream.writer_lock import Claim
    from tracking.trajectories.compression import pack
    from tracking.trajectories.recovery import recover as mend

    report = mend(file, output=output, force=force)
    if report.already_whole:
        if missing_control_record(RunFiles.beside(file)):
            with Claim(file, "recovering"):
                add_control_record(RunFiles.beside(file))
        _done(f"{file} is complete: {report.frames} frames, {report.rows} rows; nothing to repair")
        return 0
    try:
        add_control_record(RunFiles.beside(report.path), RunFiles.beside(file).events)
        pack(report.path)
    except LivePTVError as error:
        _done(str(error))
    _done(
        f"{report.path} is repaired: {report.frames} frames, {report.rows} rows; {report.frames_cut} frames and "
        f"{report.rows_cut} rows that had not been committed were removed"
    )
    if report.kept is not None and report.kept != file:
        _done(f"the damaged file is kept as {report.kept}; delete it once you have checked the result")
    return 0


def _done(text: str) -> None:
    console.print(escape(text), soft_wrap=True)


class _Bar(Progress):
    """A progress bar with one task."""


def progress_bar(what: str) -> _Bar:
    """A progress bar on a terminal, nothing elsewhere."""
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
