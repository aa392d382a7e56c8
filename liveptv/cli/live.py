"""Commands that run the whole pipeline: `demo`, `run`, `replay`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from acquisition.stacks.axes import parse_axes
from liveptv.cli.console import LiveLine, console, errors
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Axes, FrameRate, Model, Monitor, Overwrite, PixelSize, Port, Settings, ZStep
from liveptv.cli.watch import page_beside, with_live_images
from liveptv.config import Experiment, load_experiment, revised
from liveptv.files import RunFiles, claimed

if TYPE_CHECKING:
    from liveptv.workflows.run import RunOutcome


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel="Live runs")(exiting(demo, claims_output=False))
    app.command(rich_help_panel="Live runs")(exiting(run, claims_output=False))
    app.command(rich_help_panel="Live runs")(exiting(replay, claims_output=False))


def demo(
    seconds: Annotated[float, typer.Option(help="how long to measure, s", min=1.0)] = 20.0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="folder for the results")] = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
    monitor: Annotated[bool, typer.Option(help="show it live in the browser")] = True,
    port: Port = 0,
) -> int:
    """Try a live run on the simulated microscope."""
    from liveptv.workflows.demo import prepare_demo

    prepared = prepare_demo(output, seconds, settings or [], overwrite=overwrite, say=_say)
    return _run(prepared.experiment, prepared.files, monitor, port)


def run(
    experiment: Annotated[Path, typer.Argument(help="experiment file (.toml)")],
    settings: Settings = None,
    model: Model = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="trajectory file, .h5")] = None,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue an interrupted protocol, in the same file")
    ] = False,
    monitor: Monitor = False,
    port: Port = 0,
) -> int:
    """Run a live experiment."""
    loaded = revised(
        load_experiment(experiment, settings or []),
        run={"output": output, "overwrite": overwrite or None},
        detector={"model": model},
    )
    files = RunFiles.beside(loaded.run.output)
    return _resume(loaded, files, monitor, port) if resume else _run(loaded, files, monitor, port)


def _resume(experiment: Experiment, files: RunFiles, monitor: bool, port: int) -> int:
    from liveptv.workflows.resume import finish_resumed, give_back, prepare_to_resume
    from liveptv.workflows.run import make_report_anew

    files.check_folder()
    with claimed(files.tracks, "liveptv run --resume"):
        resumed = prepare_to_resume(experiment, files)
    if resumed.part is None:
        return _run(experiment, files, monitor, port)
    _say(f"{resumed.done} slices have been measured; continuing with the next")
    try:
        return _run(resumed.experiment, files, monitor, port)
    finally:
        with claimed(files.tracks, "liveptv run --resume"):
            if files.tracks.exists():
                finish_resumed(resumed, files)
            else:
                give_back(resumed, files)
            make_report_anew(files)


def replay(
    recording: Annotated[
        Path,
        typer.Argument(
            help="recording: TIFF, OME-TIFF, OME-Zarr, HDF5 or a folder of images; or the trajectory file of a "
            "recorded run"
        ),
    ],
    model: Model = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="trajectory file, .h5")] = None,
    frame_rate: FrameRate = None,
    pixel_size: PixelSize = None,
    axes: Axes = None,
    z_step: ZStep = None,
    pace: Annotated[
        bool, typer.Option("--pace", help="play at the recorded frame rate, not as fast as possible")
    ] = False,
    all_frames: Annotated[
        bool,
        typer.Option(
            "--all-frames",
            help="of a recorded run: all frames, each as if there were time, also where the run's result could be "
            "repeated",
        ),
    ] = False,
    settings: Settings = None,
    overwrite: Overwrite = False,
    monitor: Monitor = False,
    port: Port = 0,
) -> int:
    """Track a recorded video, or a recorded run once more, with the pipeline of a live run."""
    from liveptv.replaying.recorded import recorded_run

    source = {
        "path": recording,
        "pace": pace,
        "decisions": "off" if all_frames else None,
        "frame_rate_hz": frame_rate,
        "pixel_size_um": pixel_size,
        "axes": None if axes is None else parse_axes(axes),
        "z_step_um": z_step,
    }
    base = {"recording": {name: value for name, value in source.items() if value is not None}}
    name = Path(str(recording).partition("::")[0]).name
    stem, kind = name.split(".", maxsplit=1)[0] or "recording", "tracks"
    if (found := recorded_run(recording)) is not None:
        base |= found.settings_for(settings or [])
        kind = "replay"
    tracks = output or Path(f"{stem}.{kind}.h5")
    loaded = revised(
        load_experiment(None, settings or [], base=base),
        run={"output": tracks, "overwrite": overwrite or None},
        detector={"model": model},
    )
    return _run(loaded, RunFiles.beside(loaded.run.output), monitor, port)


def _run(experiment: Experiment, files: RunFiles, monitor: bool, port: int) -> int:
    from liveptv.workflows.run import run_experiment

    beside = page_beside(port) if monitor else None
    experiment = with_live_images(experiment) if monitor else experiment
    with LiveLine() as line:
        outcome = run_experiment(experiment, files, on_update=line.show, on_note=line.note, beside=beside)
    summarise(outcome)
    return 0 if outcome.result.ok and outcome.result.started else 1


def _say(text: str) -> None:
    console.print(escape(text), soft_wrap=True)


def summarise(outcome: RunOutcome) -> None:
    """Print how the run ended, what was measured and where the files are."""
    result = outcome.result
    if outcome.frames or outcome.account.total_lost or (result.ok and result.started):
        for name, value in _facts(outcome):
            console.print(f"[dim]{name:>17}[/]  {escape(value)}", soft_wrap=True)
    if result.ok and not result.started:
        errors.print(f"[bold red]error:[/] {escape(result.reason)} before the first frame", soft_wrap=True)
    for failure in result.failures:
        errors.print(f"[bold red]error:[/] {escape(failure)}", soft_wrap=True)


def _facts(outcome: RunOutcome) -> list[tuple[str, str]]:
    from liveptv.method_limits import outside_the_limits
    from liveptv.reports.profile import MIN_LENGTH
    from liveptv.volumes.account import FRAME, VOLUME

    result, report = outcome.result, outcome.report
    rate = outcome.frames / result.duration_s if result.duration_s > 0 else math.nan
    unit = FRAME if outcome.volumes is None else VOLUME
    rows = [
        ("ended", result.reason),
        (f"{unit}s", f"{outcome.frames} in {result.duration_s:.1f} s ({rate:.1f} {unit}s/s)"),
        *([("of these", outcome.volumes.in_words())] if outcome.volumes is not None else []),
        (f"{unit}s lost", outcome.account.in_words()),
        *([("results", outcome.age.in_words())] if outcome.age is not None else []),
        *([("images", outcome.recording.in_words())] if outcome.recording is not None else []),
        ("detections", f"{result.count('detect', 'particles')}"),
    ]
    if beyond := outside_the_limits(result.counts):
        rows.append(("outside limits", beyond))
    if result.safety:
        rows.append(("hardware", "; ".join(str(device) for device in result.safety)))
    if report is not None:
        profile = report.profile
        if report.not_fitted:
            rows.append(("not fitted", report.not_fitted))
        rows.append(("trajectories", f"{profile.tracks.track.size} with at least {MIN_LENGTH} detections"))
        if profile.theory is not None and math.isfinite(profile.deviation):
            rows.append(
                (
                    "velocity profile",
                    f"deviates from laminar flow by at most {100 * profile.deviation:.1f} % of its maximum "
                    f"({profile.theory.max_um_s:.1f} um/s)",
                )
            )
    rows.append(("trajectory file", str(outcome.files.tracks)))
    if report is not None:
        rows.append(("report", str(report.page)))
    return rows
