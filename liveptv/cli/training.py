"""The command `train`: trains a detection network on a calibration, or on known optics."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from liveptv.cli.console import PLAIN_PERIOD_S, console
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Overwrite
from liveptv.files import claimed, refuse_to_replace, writable
from stream.errors import ConfigurationError, LivePTVError

if TYPE_CHECKING:
    from calibration.training.group.member import Member
    from calibration.training.train import TrainingProgress
    from liveptv.workflows.examples import Examples
    from liveptv.workflows.train import PipelineOf, Trained
    from liveptv.workflows.train_volumes import TrainedVolumes

SIZES = ("small", "large")
SHIPPED, NOTHING = "shipped", "nothing"
ONE_SOURCE = "give either a calibration, --optics, --images or --examples to train on"


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel="Calibration")(exiting(train, claims_output=False))


def train(
    calibration: Annotated[Path | None, typer.Argument(help="calibration file, .h5")] = None,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="file for the network, .onnx; with --images and --examples also .h5, an image model for matched "
            "filters and fit, which needs no training",
        ),
    ] = Path("model.onnx"),
    optics: Annotated[
        str | None,
        typer.Option(help="instead of a calibration: a .toml or .json file with the optics, or `simulated`"),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            help="instead of a calibration: a .py file with a DeepTrack pipeline, whose code is run; "
            "`pipeline.py:NAME` names one of several, `notebook.ipynb:NAME` one of a notebook"
        ),
    ] = None,
    learn: Annotated[
        str | None,
        typer.Option(
            help="properties of the pipeline's objects to learn beside place and kind, such as "
            "`radius,refractive_index`"
        ),
    ] = None,
    examples: Annotated[
        list[Path] | None,
        typer.Option(
            help="instead of a calibration: images with one object in the middle of each, or with --at a "
            "recording; may be given several times"
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="where an object is in the recording of --examples: `x,y` in pixels, or `x,y,image`; may be given "
            "several times"
        ),
    ] = None,
    background: Annotated[
        Path | None,
        typer.Option(
            help="with --examples: a recording, of which what does not move is put behind the objects"
        ),
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(
            help="um a pixel of the camera, where a pipeline or the examples do not say or are to be overruled",
            min=1e-6,
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(help="how long to train, min", min=0.01)] = 60.0,
    steps: Annotated[
        int | None, typer.Option(help="train no more steps than these, also if time is left", min=1)
    ] = None,
    size: Annotated[str, typer.Option(help="`small`, for CPUs, or `large`, for GPUs")] = "small",
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="network to start from: a file, `shipped` (default for small) or `nothing` (default for large and "
            "with --images)",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="seed of the weights and the training images", min=0)] = 0,
    processes: Annotated[
        int | None,
        typer.Option(
            help="processes of one thread each; if left out, as many as CPU cores (torchrun sets its own number)",
            min=1,
            max=256,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="image crops per step and process; if left out, 16, and 256 on a GPU", min=1),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="folder for checkpoints, from which an interrupted training continues")
    ] = None,
    overwrite: Overwrite = False,
) -> int:
    """Train a detection network on a calibration; `torchrun ... -m liveptv train` does it on several computers."""
    from calibration.training.group.member import launched_member
    from liveptv.models import SHIPPED_MODEL
    from liveptv.workflows.object_model import SUFFIXES
    from liveptv.workflows.train import check_libraries
    from liveptv.workflows.train_volumes import check_start, is_for_volumes

    volumes = is_for_volumes(calibration)
    start = start or (SHIPPED if size == "small" and not volumes and images is None else NOTHING)
    start_from = {SHIPPED: SHIPPED_MODEL, NOTHING: None}.get(start, Path(start))
    member = launched_member()
    with _one_voice(member), contextlib.ExitStack() as stack:
        if size not in SIZES:
            raise ConfigurationError(f"--size must be small or large, not {size!r}")
        if (images is not None or examples) and output.suffix.lower() in SUFFIXES:
            if sum(each is not None for each in (calibration, optics, images, examples or None)) > 1:
                raise ConfigurationError(ONE_SOURCE)
            if background is not None:
                raise ConfigurationError(
                    f"--background is for the training of a network; {output} is an image model, which has none: "
                    "leave it out, or give an output that ends in .onnx"
                )
            seen = _examples_of(examples, at, background, pixel_size)
            pipeline = _pipeline_of(images, learn, pixel_size, says=True)
            _make_object_model(output, pipeline, seen, minutes, overwrite)
            return 0
        if output.suffix.lower() != ".onnx":
            raise ConfigurationError(f"the network is written as an .onnx file; {output} must end in .onnx")
        if member is not None and processes not in (None, member.size):
            raise ConfigurationError(f"torchrun started {member.size} processes; leave out --processes")
        if member is None or member.first:
            refuse_to_replace(output, calibration, start_from, background, *(examples or ()))
            writable(output, overwrite)
            stack.enter_context(claimed(output, "liveptv train"))
        check_libraries()
        import torch

        from liveptv.workflows.examples import recipe_of
        from liveptv.workflows.train import recipe_for, settings_for, train_model
        from liveptv.workflows.train_volumes import for_volumes, train_volume_model

        first = member is None or member.first
        if pixel_size is not None and images is None and not examples:
            raise ConfigurationError("--pixel-size belongs to --images or --examples")
        pipeline = _pipeline_of(images, learn, pixel_size, first)
        seen = _examples_of(examples, at, background, pixel_size)
        given = sum(each is not None for each in (calibration, optics, pipeline, seen))
        if given != 1:
            raise ConfigurationError(ONE_SOURCE)
        if volumes:
            check_start(start_from)
        on_gpu = torch.cuda.is_available()
        if member is not None:
            processes = member.size
            if on_gpu and member.local_size > torch.cuda.device_count():
                raise ConfigurationError(
                    f"torchrun started {member.local_size} processes on a computer with "
                    f"{torch.cuda.device_count()} GPUs; give it --nproc-per-node with their number"
                )
        elif on_gpu:
            processes = 1
        settings = settings_for(
            minutes,
            size,
            seed=seed,
            steps=steps,
            processes=processes,
            batch=batch,
            start_from=start_from,
            checkpoint=checkpoint,
        )
        if volumes:
            assert calibration is not None
            settings = for_volumes(settings)
            quiet = member is not None and not member.first
            with _Line() as line:
                show = (lambda _progress: None) if quiet else line.show
                of_volumes = train_volume_model(output, calibration, settings, show, member)
            if of_volumes is not None:
                _report_volumes(of_volumes)
            return 0
        if seen is not None:
            recipe, digest = recipe_of(seen, _say if first else lambda _line: None)
        else:
            recipe, digest = recipe_for(calibration, optics, pipeline, settings.expected_minutes)
        if member is not None and not member.first:
            train_model(output, recipe, digest, settings, lambda _progress: None, member)
            return 0
        with _Line() as line:
            trained = train_model(output, recipe, digest, settings, line.show, member)
        if trained is not None:
            _report(trained)
    return 0


def _make_object_model(
    output: Path, pipeline: PipelineOf | None, seen: Examples | None, minutes: float, overwrite: bool
) -> None:
    from liveptv.workflows.object_model import make_any_object_model

    refuse_to_replace(output, *(seen.paths if seen is not None else ()), pipeline and pipeline.path)
    writable(output, overwrite)
    with claimed(output, "liveptv train"):
        _say(make_any_object_model(output, pipeline or seen, _say, minutes, overwrite))
    console.print(f"image model written to {escape(str(output))}", soft_wrap=True)


def _pipeline_of(
    images: str | None, learn: str | None, pixel_size: float | None, says: bool
) -> PipelineOf | None:
    """The pipeline that the options name; says that its code will be run."""
    from liveptv.workflows.train import PipelineOf

    if images is None:
        if learn is not None:
            raise ConfigurationError("--learn belongs to --images")
        return None
    from calibration.deeptrack.loading import split_name

    path, name = split_name(images)
    if says:
        console.print(
            f"the pipeline {escape(str(path.absolute()))} is Python code and will be run", soft_wrap=True
        )
    terms = tuple(term.strip() for term in (learn or "").split(",") if term.strip())
    return PipelineOf(path, name, terms, pixel_size)


def _examples_of(
    paths: list[Path] | None, at: list[str] | None, background: Path | None, pixel_size: float | None
) -> Examples | None:
    """The examples that the options name."""
    from liveptv.workflows.examples import Examples, parse_at

    if not paths:
        if at or background is not None:
            raise ConfigurationError("--at and --background belong to --examples")
        return None
    return Examples(tuple(paths), parse_at(at or ()), background, pixel_size)


def _say(line: str) -> None:
    console.print(escape(line), soft_wrap=True)


@contextlib.contextmanager
def _one_voice(member: Member | None) -> Iterator[None]:
    """Let one process of those that torchrun started say what went wrong, and which of them it was."""
    if member is None or not member.launched:
        yield
        return
    from calibration.training.settings import SaidElsewhereError, TrainingError

    try:
        yield
    except SaidElsewhereError:
        raise typer.Exit(1) from None
    except (LivePTVError, KeyboardInterrupt) as error:
        if not _first_to_say(member):
            raise typer.Exit(1) from None
        if isinstance(error, KeyboardInterrupt):
            raise
        raise TrainingError(f"{member.name}: {error}") from error


def _first_to_say(member: Member) -> bool:
    try:
        from calibration.training.group.meeting import first_to_say
    except ImportError:  # torch may be what is missing
        return True
    return first_to_say(member)


def _report(trained: Trained) -> None:
    found = trained.scores
    digits, depth = (2, trained.card.depth) if found.x_um > 0.02 else (4, trained.card.depth)
    place = [found.x_um, found.y_um, found.z_um][: 3 if depth else 2]
    errors = ", ".join(f"{value:.{digits}f}" for value in place)
    console.print(
        f"missed {100 * found.missed:.1f} %, false {100 * found.evaluation.false:.1f} % of {found.particles} "
        f"particles; rms error of lone particles {errors} um ({', '.join('xyz'[: len(place)])})"
    )
    for each in found.properties:
        if each.rms is not None:
            console.print(
                f"{each.name}: rms error {each.rms:.3g}, {100 * each.of_range:.1f} % of its range; error over "
                f"stated {each.calibration:.2f}"
            )
    if math.isfinite(found.class_right):
        console.print(
            f"kind right for {100 * found.class_right:.1f} % of the particles found, "
            f"{100 * found.class_stated:.1f} % by their probabilities"
        )
    console.print(
        f"network written to {escape(str(trained.model))}, its report to {escape(str(trained.page))}",
        soft_wrap=True,
    )


def _report_volumes(trained: TrainedVolumes) -> None:
    console.print(f"fresh volumes at its signal-to-noise ratios: {volume_scores(trained.scores)}")
    console.print(
        f"network for volumes written to {escape(str(trained.model))}, its report to "
        f"{escape(str(trained.page))}",
        soft_wrap=True,
    )


def volume_scores(scores: dict[str, Any]) -> str:
    """F1 and the rms error at each signal-to-noise ratio, in words."""
    parts = []
    for name, f1 in scores.items():
        if name.startswith("f1_snr"):
            snr = name.removeprefix("f1_snr")
            rmse = scores.get(f"rmse_snr{snr}")
            parts.append(f"{snr}: F1 {f1:.3f}" + ("" if rmse is None else f", rms error {rmse:.2f} voxels"))
    return "; ".join(parts)


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
    if any(name.startswith("f1_snr") for name in scores):
        return f"; SNR {volume_scores(scores)}"
    if not scores or scores.get("missed") is None or scores.get("false") is None:
        return ""
    missed, false = 100 * scores["missed"], 100 * scores["false"]
    depth = "" if scores.get("z_um") is None else f", rms error of z {scores['z_um']:.1f} um"
    return f", missed {missed:.1f} %, false {false:.1f} %{depth}"
