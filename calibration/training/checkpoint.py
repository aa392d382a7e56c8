"""Checkpoints: a training on disk, from which it continues after an interruption."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from calibration.training.settings import TrainingError, TrainingSettings
from calibration.training.trainer import Trainer
from engines.bounded_reading import refuse_beyond

NAME = "training.pt"
MOST_BYTES = 1 << 31
"""Of a training, unpacked: 20 MB are typical."""
# settings that may differ between a training and its continuation
FREE = {"minutes", "steps", "checkpoint", "processes", "score_every_s", "patience", "device"}


@dataclass(slots=True)
class Course:
    """Progress of a training: its time and scores, and the weights with the least loss on held-out images."""

    trained_s: float = 0.0
    best: float = float("inf")
    best_at_s: float = 0.0
    scores: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)

    def with_arrays(self) -> Course:
        """The same with numpy arrays: torch's tensors do not outlive the process that sends them."""
        return replace(self, weights={name: value.numpy() for name, value in self.weights.items()})

    def with_tensors(self) -> Course:
        """The same with tensors again."""
        return replace(self, weights={name: torch.from_numpy(v) for name, v in self.weights.items()})


def kept(settings: TrainingSettings, made_from: str) -> str:
    """What a training and its continuation, and all processes of one, must have in common."""
    return json.dumps([made_from, settings.model_dump(mode="json", exclude=FREE)], sort_keys=True)


def save(folder: Path, trainer: Trainer, course: Course) -> None:
    """Write the training to `folder`; an interruption leaves the previous checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / (NAME + ".part")
    torch.save(
        {
            "settings": kept(trainer.settings, trainer.material.made_from),
            "steps": trainer.steps,
            "network": trainer.network.state_dict(),
            "averaged": trainer.averaged.state_dict(),
            "optimiser": trainer.optimiser.state_dict(),
            "course": [course.trained_s, course.best, course.best_at_s, course.scores, course.weights],
        },
        part,
    )
    part.replace(folder / NAME)


def resume(folder: Path, trainer: Trainer) -> Course | None:
    """Continue the training in `folder`; None where there is none.

    Raises `TrainingError` for a damaged one, or one with other settings or another calibration.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        refuse_beyond(size, MOST_BYTES, path.name)
        data = torch.load(path, map_location=trainer.device, weights_only=True)
        if data["settings"] != kept(trainer.settings, trainer.material.made_from):
            raise TrainingError(
                f"{folder} holds a training with other settings or of another calibration; name another folder"
            )
        trainer.network.load_state_dict(data["network"])
        trainer.averaged.load_state_dict(data["averaged"])
        trainer.optimiser.load_state_dict(data["optimiser"])
        trainer.steps = int(data["steps"])
        course = Course(*data["course"])
    except TrainingError:
        raise
    except Exception as error:  # torch raises whatever the damaged pickle makes it raise
        raise TrainingError(
            f"cannot continue the training of {path} ({error}); remove it to start again"
        ) from error
    trainer.reseed()
    return course
