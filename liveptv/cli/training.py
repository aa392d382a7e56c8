"""The command `train`: trains a detection network on a calibration, or on known optics."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from liveptv.cli.console import PLAIN_PERIOD_S, console
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Overwrite
from liveptv.files import refuse_to_replace, writable
from stream.errors import ConfigurationError

if TYPE_CHECKING:
    from calibration.training.train import TrainingProgress

SIZES = ("small", "large")
SHIPPED, NOTHING = "shipped", "nothing"


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel="Calibration")(exiting(train))


def train(
    calibration: Annotated[Path | None, typer.Argument(help="calibration file, .h5")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="file for the network, .onnx")] = Path(
        "model.onnx"
    ),
    optics: Annotated[
        str | None,
        typer.Option(help="instead of a calibration: a .toml or .json file with the optics, or `simulated`"),
    ] = None,
    minutes: Annotated[float, typer.Option(help="how long to train, min", min=0.01)] = 60.0,
    size: Annotated[str, typer.Option(help="`small`, for CPUs, or `large`, for GPUs")] = "small",
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="network to start from: a file, `shipped` (default for small) or `nothing` (default for large)",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="seed of the weights and the training images", min=0)] = 0,
    processes: Annotated[
        int | None,
        typer.Option(help="processes of one thread each; if left out, as many as CPU cores", min=1, max=256),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="folder for checkpoints, from which an interrupted training continues")
    ] = None,
    overwrite: Overwrite = False,
) -> int:
    """Train a detection network on a calibration."""
    from liveptv.models import SHIPPED_MODEL
    from liveptv.workflows.train import check_libraries, default_processes

    if size not in SIZES:
        raise ConfigurationError(f"--size must be small or large, not {size!r}")
    if output.suffix.lower() != ".onnx":
        raise ConfigurationError(f"the network is written as an .onnx file; {output} must end in .onnx")
    start = start or (SHIPPED if size == "small" else NOTHING)
    start_from = {SHIPPED: SHIPPED_MODEL, NOTHING: None}.get(start, Path(start))
    refuse_to_replace(output, calibration, start_from)
    writable(output, overwrite)
    check_libraries()
    import torch

    from calibration.training.settings import TrainingSettings
    from liveptv.workflows.train import recipe_for, train_model

    recipe, digest = recipe_for(calibration, optics)
    on_gpu = torch.cuda.is_available()
    settings = TrainingSettings(
        size="large" if size == "large" else "small",
        minutes=minutes,
        seed=seed,
        processes=1 if on_gpu else processes or default_processes(),
        device="cuda" if on_gpu else "cpu",
        batch=256 if on_gpu else 16,
        start_from=start_from,
        checkpoint=checkpoint,
        score_every_s=max(5.0, min(60.0, 60.0 * minutes / 20)),
    )
    with _Line() as line:
        trained = train_model(output, recipe, digest, settings, line.show)
    found = trained.scores
    console.print(
        f"missed {100 * found.missed:.1f} %, false {100 * found.evaluation.false:.1f} % of {found.particles} "
        f"particles; rms error of lone particles {found.x_um:.2f}, {found.y_um:.2f}, {found.z_um:.2f} um (x, y, z)"
    )
    if math.isfinite(found.class_right):
        console.print(f"kind right for {100 * found.class_right:.1f} % of the particles found")
    console.print(
        f"network written to {escape(str(trained.model))}, its report to {escape(str(trained.page))}",
        soft_wrap=True,
    )
    return 0


class _Line:
    """A progress bar with the newest scores on a terminal, a plain line for each new score elsewhere."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=1.0)
        self._due_s = 0.0
        self._said: dict[str, Any] = {}

    def show(self, progress: TrainingProgress) -> None:
        """Show the progress and the scores of the training."""
        text = f"step {progress.steps}, loss {progress.loss:.2f}{_scores(progress.scores)}"
        self._bar.update(self._task, completed=progress.part, description=text)
        now_s = time.monotonic()
        if not console.is_terminal and now_s >= self._due_s and progress.scores != self._said:
            self._said, self._due_s = progress.scores, now_s + PLAIN_PERIOD_S
            console.print(f"{100 * progress.part:3.0f} %  {text}")

    def __enter__(self) -> _Line:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _scores(scores: dict[str, Any]) -> str:
    if not scores or scores.get("z_um") is None or scores.get("false") is None:
        return ""
    missed, false = 100 * scores["missed"], 100 * scores["false"]
    return f", missed {missed:.1f} %, false {false:.1f} %, rms error of z {scores['z_um']:.1f} um"
