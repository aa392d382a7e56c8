"""Trains a network for volumes on a calibration of volumes, scores it, and writes the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liveptv.shadowed_packages import home_first
from stream.errors import ConfigurationError

if TYPE_CHECKING:
    from calibration.training.group.member import Member
    from calibration.training.settings import TrainingSettings
    from calibration.training.train import TrainingProgress

CROP_PX = 64
"""Side of a training volume: the network sees 50 px around a particle, of which half tells most."""
LEARNING_RATE = 3e-3
LONGEST_PERIOD_S = 240.0
"""Between two scores, which take 3 to 6 s on a core."""


@dataclass(frozen=True, slots=True)
class TrainedVolumes:
    """A trained volume network, its scores on fresh volumes, and its report."""

    model: Path
    scores: dict[str, Any]
    page: Path


def for_volumes(settings: TrainingSettings) -> TrainingSettings:
    """Settings of a training on volumes instead of images."""
    period_s = max(10.0, min(LONGEST_PERIOD_S, 60.0 * settings.minutes / 20))
    return settings.model_copy(
        update={"crop_px": CROP_PX, "learning_rate": LEARNING_RATE, "score_every_s": period_s}
    )


def is_for_volumes(calibration: Path | None) -> bool:
    """Whether a file is a calibration of volumes."""
    if calibration is None:
        return False
    from engines.volumes.model import is_volume_model

    return is_volume_model(calibration)


def check_start(start: Path | None) -> None:
    """Raise `ConfigurationError` where a network to start from is not one for volumes."""
    if start is None:
        return
    from engines.volumes.network.model import VolumeOnnxModel

    try:
        VolumeOnnxModel(start)
    except ConfigurationError as error:
        raise ConfigurationError(f"cannot start from {start}: {error}; give --from nothing") from error


def train_volume_model(
    output: Path,
    calibration: Path,
    settings: TrainingSettings,
    on_progress: Callable[[TrainingProgress], None],
    member: Member | None = None,
) -> TrainedVolumes | None:
    """Train, write the model, and score it on fresh volumes.

    `member` is this process's part where torchrun started it; the first one writes, the others return None.
    Raises `TrainingError` if the training fails or has no result, `OutputError` if the file cannot be written.
    """
    import torch

    from calibration.training.settings import TrainingError
    from calibration.training.train import train
    from calibration.volumes.training.export import (
        export,
        make_card,
        measure_sigma_scale,
        read_volume_weights,
    )
    from calibration.volumes.training.material import from_volume_calibration
    from calibration.volumes.training.method import method
    from calibration.volumes.training.scoring import SCORING_SEED, VolumeExamination
    from engines.volumes.network.model import VolumeOnnxModel
    from engines.volumes.network.torch_network import network_of
    from liveptv.reports.volume_training_page import write_volume_training_page
    from liveptv.session.provenance import sha256

    digest = sha256(calibration)
    recipe = from_volume_calibration(calibration, f"calibration {calibration.name}")
    start = settings.start_from
    weights = None if start is None else read_volume_weights(start, settings.size)
    how = method()
    with home_first():
        agreed = f"liveptv {version('liveptv')}, volumes, calibration {digest}, {settings.device}; "
        course = train(recipe, settings, weights, on_progress, how, member, agreed)
    if member is not None and not member.first:
        return None
    if not course.weights:
        raise TrainingError("the training ended before its first result; give it more --minutes")
    material = recipe()
    scale = measure_sigma_scale(material, settings, course.weights)
    card = make_card(material, settings, course, digest, scale)
    export(output, course.weights, card, material.psf)
    examination = VolumeExamination(material, how, SCORING_SEED + 1)
    _, scores = examination(network_of(VolumeOnnxModel(output)), torch.device("cpu"))
    page = write_volume_training_page(output, card, course.scores, scores)
    return TrainedVolumes(output, scores, page)
