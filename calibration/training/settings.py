"""Settings of a training; every default works unattended."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from calibration.errors import CalibrationError

FULL_MINUTES, FEWEST_SCORED = 10.0, 16
"""A training of fewer minutes is scored on fewer images, in proportion, which it would else outlast; 16 of 256 px
have some 200 particles, and 5 % missed are known to 1.5 %."""
CROP_S = 0.02
"""Processor time of a crop of 128 px, small network, with its image, s; 0.015 were measured. It tells how long
a number of steps takes, for which a factor of 3 is near enough."""


class TrainingError(CalibrationError):
    """A training that cannot start or continue; the text says what to do."""


class SaidElsewhereError(TrainingError):
    """A training that ended because of another of its processes, which has reported it."""


class TrainingSettings(BaseModel):
    """How a network is trained.

    From the same seed, number of processes and number of steps follow the same weights; a training that is
    ended by its time takes as many steps as the machine manages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: Literal["small", "large"] = Field(
        "small", description="size of the network: small for processors, large for GPUs"
    )
    minutes: float = Field(60.0, gt=0, description="duration of the training")
    steps: int | None = Field(
        None, ge=1, description="largest number of steps; left out: only the duration counts"
    )
    seed: int = Field(0, ge=0, description="seed of the weights and of the training images")
    processes: int = Field(
        1, ge=1, le=4096, description="number of processes on all computers; one a core, or one a GPU"
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="where to train")
    batch: int = Field(
        16, ge=1, description="image crops per step and process; the learning rate is the same for any number"
    )
    crop_px: int = Field(128, ge=32, multiple_of=16, description="side of an image crop")
    learning_rate: float = Field(
        5e-3, gt=0, description="largest learning rate; it rises to this and then falls to nearly 0"
    )
    average: float = Field(0.9985, ge=0, lt=1, description="decay of the running mean of the weights")
    patience: float = Field(
        0.4,
        gt=0,
        description="stop after this fraction of the duration without a lower held-out loss, once the learning "
        "rate is low",
    )
    start_from: Path | None = Field(None, description="model of the same size whose weights are the start")
    score_every_s: float = Field(60.0, gt=0, description="time between two scores on held-out images")
    checkpoint: Path | None = Field(
        None, description="folder in which the training is saved, to resume it after an interruption"
    )

    @property
    def expected_minutes(self) -> float:
        """`minutes`, or about as many as the steps take, where these are fewer."""
        crops = math.inf if self.steps is None else self.steps * self.batch
        return min(self.minutes, crops * CROP_S / 60)

    def scored(self, images: int) -> int:
        """How many images to score on, of those that a long training has."""
        part = min(1.0, self.expected_minutes / FULL_MINUTES)
        return max(min(images, FEWEST_SCORED), round(images * part))
