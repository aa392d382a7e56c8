"""Trains a network on a calibration or on given optics, scores it, and writes the model and its report."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from acquisition.physics.optics import OpticsModel
from liveptv.shadowed_packages import home_first
from stream.errors import ConfigurationError

if TYPE_CHECKING:
    from calibration.training.group.member import Member
    from calibration.training.material import Recipe
    from calibration.training.scoring import Scores
    from calibration.training.settings import TrainingSettings
    from calibration.training.train import TrainingProgress
    from engines.network.model_card import ModelCard

NEEDED = ("torch", "onnx", "onnxscript")
SIMULATED = "simulated"
MOST_PROCESSES = 16  # averaging the gradients of more processes costs a growing part of each step
REPORTED_IMAGES = 192  # images behind the scores in the report; more give steadier scores and take longer


class PipelineOf(NamedTuple):
    """A pipeline of images: its file, its name there ("": the only one), what to learn, and the camera's pixels."""

    path: Path
    name: str
    learn: tuple[str, ...] = ()
    pixel_size_um: float | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model, its scores on fresh images, its report, and the scores during the training (`Course`)."""

    model: Path
    page: Path
    card: ModelCard
    scores: Scores
    course: list[dict[str, Any]]


def check_libraries() -> None:
    """Raise `ConfigurationError` if libraries for training are missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f'training needs {", ".join(missing)}: pip install "liveptv[train]" (with -c constraints.txt in a '
            "checkout)"
        )


def default_processes() -> int:
    """One process per CPU core, up to `MOST_PROCESSES`."""
    return min(MOST_PROCESSES, os.cpu_count() or 1)


def settings_for(
    minutes: float,
    size: str,
    *,
    seed: int = 0,
    steps: int | None = None,
    processes: int | None = None,
    batch: int | None = None,
    start_from: Path | None = None,
    checkpoint: Path | None = None,
) -> TrainingSettings:
    """The settings of a training on this computer, on its GPU where it has one. Needs torch."""
    import torch

    from calibration.training.settings import TrainingSettings

    on_gpu = torch.cuda.is_available()
    return TrainingSettings(
        size="large" if size == "large" else "small",
        minutes=minutes,
        steps=steps,
        seed=seed,
        processes=processes or (1 if on_gpu else default_processes()),
        device="cuda" if on_gpu else "cpu",
        batch=batch or (256 if on_gpu else 16),
        start_from=start_from,
        checkpoint=checkpoint,
        score_every_s=max(5.0, min(60.0, 60.0 * minutes / 20)),
    )


def read_optics(text: str) -> OpticsModel:
    """The optics of the simulated microscope for "simulated", else those of a JSON or TOML file.

    Raises `ConfigurationError` if the file cannot be read or does not describe optics.
    """
    if text == SIMULATED:
        return OpticsModel()
    path = Path(text)
    try:
        content = path.read_text(encoding="utf-8-sig")
        data = tomllib.loads(content) if path.suffix.lower() == ".toml" else json.loads(content)
        return OpticsModel.model_validate(data)
    except OSError as error:
        raise ConfigurationError(f"cannot read the optics {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} does not describe optics: {' '.join(str(error).split())}"
        ) from error


def recipe_for(
    calibration: Path | None,
    optics: str | None,
    pipeline: PipelineOf | None = None,
    minutes: float = math.inf,
) -> tuple[Recipe, str]:
    """What to train on in so many minutes, and the SHA-256 of the calibration's or the pipeline's file ("" for
    optics)."""
    from calibration.calibration_file import read_calibration
    from calibration.training.material import from_calibration, from_optics
    from liveptv.session.provenance import sha256

    if pipeline is not None:
        from calibration.deeptrack.material import from_pipeline

        return from_pipeline(*pipeline, minutes)[1], sha256(pipeline.path)
    if calibration is not None:
        read_calibration(calibration)
        return from_calibration(calibration, f"calibration {calibration.name}"), sha256(calibration)
    return from_optics(read_optics(str(optics))), ""


def train_model(
    output: Path,
    recipe: Recipe,
    calibration_sha256: str,
    settings: TrainingSettings,
    on_progress: Callable[[TrainingProgress], None],
    member: Member | None = None,
) -> Trained | None:
    """Train, write the model, score it as it is on fresh images, and write its page beside it.

    `member` is this process's part where torchrun started it; the first one writes, the others return None.
    Raises `TrainingError` if the training fails or has no result, `OutputError` if files cannot be written.
    """
    from calibration.training.class_temperature import at_temperature
    from calibration.training.export import export, make_card, measure_scales, read_weights
    from calibration.training.fit_scale import with_measured_errors
    from calibration.training.scoring import SCORING_SEED, HeldOut
    from calibration.training.settings import TrainingError
    from calibration.training.train import train
    from calibration.training.trainer import OURS
    from engines.network.model import OnnxModel
    from liveptv.reports.training_page import write_training_page

    start = settings.start_from
    weights = None if start is None else read_weights(start, settings.size)
    with home_first():
        agreed = f"liveptv {version('liveptv')}, calibration {calibration_sha256}, {settings.device}; "
        course = train(recipe, settings, weights, on_progress, member=member, agreed=agreed)
    if member is not None and not member.first:
        return None
    if not course.weights:
        raise TrainingError("the training ended before its first result; give it more --minutes")
    material = recipe()
    scale = measure_scales(material, settings, course.weights)
    card = make_card(material, settings, course, calibration_sha256, scale)
    weights = at_temperature(course.weights, material.kinds, scale.class_temperature)
    export(output, weights, card, material.particle, material.others)
    model = OnnxModel(output)
    if material.particle is not None:
        export(output, weights, card, with_measured_errors(material, model), material.others)
    as_written = replace(material, properties=card.properties)
    scores = HeldOut(as_written, settings.scored(REPORTED_IMAGES), SCORING_SEED + 1).score(
        model, at_once=1, sigma_scale=model.card.sigma_scale, read=OURS.reader(material.learnt)
    )
    page = write_training_page(output, model.card, course.scores, scores)
    return Trained(output, page, model.card, scores, course.scores)
