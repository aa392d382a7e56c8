"""Settings of a training; every default works unattended."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from calibration.errors import CalibrationError


class TrainingError(CalibrationError):
    """A training that cannot start or continue; the text says what to do."""


class TrainingSettings(BaseModel):
    """How a network is trained.

    From the same seed, number of processes and number of steps follow the same weights; a training that is
    ended by its time takes as many steps as the machine manages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: Literal["small", "large"] = "small"
    minutes: float = Field(60.0, gt=0, description="how long to train")
    steps: int | None = Field(None, ge=1, description="end after so many steps, if the time has not before")
    seed: int = Field(0, ge=0)
    processes: int = Field(1, ge=1, le=256, description="of one thread each; 1 on a GPU")
    device: Literal["cpu", "cuda"] = "cpu"
    batch: int = Field(16, ge=1, description="crops a step and process")
    crop_px: int = Field(128, ge=32, multiple_of=16)
    learning_rate: float = Field(5e-3, gt=0, description="the largest; it rises to it and falls to nearly 0")
    average: float = Field(0.9985, ge=0, lt=1, description="of the running mean of the weights")
    patience: float = Field(
        0.4,
        gt=0,
        description="stop after such a part of the time without a smaller held-out loss, once the rate is low",
    )
    start_from: Path | None = Field(None, description="a model of the same size whose weights are the start")
    score_every_s: float = Field(60.0, gt=0)
    checkpoint: Path | None = Field(None, description="a folder; a training that was cut off goes on from it")
