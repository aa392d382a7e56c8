"""The command `batch`: detection and tracking of many recordings."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from acquisition.stacks.axes import parse_axes
from liveptv.cli.console import console, errors, warn
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Axes, FrameRate, Model, PixelSize, Settings, ZStep

if TYPE_CHECKING:
    from liveptv.batch.jobs import Job
    from liveptv.batch.run import BatchProgress

LINE_S = 15.0
"""Time between two lines where there is no terminal, s."""


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel="Recorded data")(exiting(batch, claims_output=False))


def batch(
    recordings: Annotated[
        Path,
        typer.Argument(help="folder that is searched for recordings, or a list of them (.txt, .csv)"),
    ],
    model: Model = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="folder for the results; left out: FOLDER.tracks")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="processes on this computer; left out: one for each processor", min=1, max=1024),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="scheduler of a running dask cluster, as tcp://host:8786"),
    ] = None,
    piece_frames: Annotated[
        int | None,
        typer.Option(
            help="cut recordings that have more frames into pieces of at most so many, for several workers; left "
            "out: where that changes no result",
            min=10,
        ),
    ] = None,
    frame_rate: FrameRate = None,
    pixel_size: PixelSize = None,
    axes: Axes = None,
    z_step: ZStep = None,
    settings: Settings = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="N/M", help="only every M-th recording, from the N-th on: job N of M that share them"
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="make results anew that were made with other settings")
    ] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            help="wait for recordings that other batches with the same folder are processing",
        ),
    ] = True,
) -> int:
    """Detect and track in many recordings, each as `replay` does; goes on where it was stopped."""
    from liveptv.batch.recordings.part import Part
    from liveptv.batch.run import BatchOptions, check_options, run_batch
    from liveptv.batch.table import table_name

    given = {
        "frame_rate_hz": frame_rate,
        "pixel_size_um": pixel_size,
        "axes": None if axes is None else parse_axes(axes),
        "z_step_um": z_step,
    }
    plain = Path(str(recordings).partition("::")[0])
    options = BatchOptions(
        source=recordings,
        out=output or plain.with_name(f"{plain.stem if plain.is_file() else plain.name}.tracks"),
        model=model,
        settings=tuple(settings or ()),
        recording={name: value for name, value in given.items() if value is not None},
        workers=workers,
        scheduler=scheduler,
        piece_frames=piece_frames,
        overwrite=overwrite,
        only=None if only is None else Part.read(only),
        waits_for_others=wait,
    )
    check_options(options)
    with _Shown() as shown:
        jobs = run_batch(options, say=shown.say, show=shown.show, on_job=shown.job)
    return _summarise(jobs, options.out, table_name(options.only))


def _summarise(jobs: list[Job], out: Path, table: str) -> int:
    from liveptv.batch.jobs import JobState

    count = {state: sum(job.state is state for job in jobs) for state in JobState}
    made = [job.marker.processed for job in jobs if job.marker is not None]
    words = [f"{count[JobState.DONE]} of {len(jobs)} recordings done"]
    if count[JobState.THERE]:
        words.append(f"{count[JobState.THERE]} were done before")
    if count[JobState.ELSEWHERE]:
        words.append(f"{count[JobState.ELSEWHERE]} are being done by another batch")
    if count[JobState.FAILED]:
        words.append(f"{count[JobState.FAILED]} failed")
    frames, tracks = sum(found.frames for found in made), sum(found.tracks for found in made)
    _print(f"{', '.join(words)}: {tracks} trajectories in {frames} frames")
    _print(f"results and {table} are in {out}")
    return 1 if count[JobState.FAILED] else 0


def _print(text: str) -> None:
    console.print(escape(text), soft_wrap=True)


class _Shown:
    """The progress: a bar with the time left on a terminal, elsewhere a line every so often."""

    def __init__(self) -> None:
        self._moving = console.is_terminal and not console.is_dumb_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=not self._moving,
        )
        self._task: Any = self._bar.add_task("starting", total=None, left="")
        self._due_s = 0.0

    def show(self, progress: BatchProgress) -> None:
        """Show a batch as it is now."""
        from liveptv.batch.jobs import JobState
        from liveptv.batch.time_left import in_words

        ended = len(progress.jobs) - progress.number(JobState.OPEN)
        failed = progress.number(JobState.FAILED)
        left = (
            f"{in_words(progress.left_s)} left" if progress.left_s == progress.left_s else "time left unknown"
        )
        what = f"{failed} failed, {left}" if failed else left
        if self._moving:
            self._bar.update(
                self._task, description=progress.workers, completed=ended, total=len(progress.jobs), left=what
            )
            return
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + LINE_S
            _print(
                f"{progress.elapsed_s:.0f} s  {ended}/{len(progress.jobs)} recordings, {what}; {progress.workers}"
            )

    def job(self, job: Job) -> None:
        """Tell of a recording that has failed."""
        from liveptv.batch.jobs import JobState
        from liveptv.batch.table import failure_in_words

        if job.state is JobState.FAILED:
            errors.print(f"[bold red]failed:[/] {escape(failure_in_words(job))}", soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line."""
        warn(text)

    def __enter__(self) -> Self:
        if self._moving:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._moving:
            self._bar.stop()
