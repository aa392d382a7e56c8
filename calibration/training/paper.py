"""The paper's detector as a method of training; see `engines.comparison.tensorbox`."""

from __future__ import annotations

import math

import torch
from torch import nn

from calibration.synthesis import Scene
from calibration.training.examination import ImageExamination
from calibration.training.hungarian_loss import HungarianLosses, hungarian_loss, truth_of
from calibration.training.material import Material
from calibration.training.method import Method
from calibration.training.settings import TrainingSettings
from calibration.training.trainer import given
from engines.comparison.stitching import read
from engines.comparison.tensorbox import PaperNet

CYCLIC_PART = 0.3
PERIOD = 0.2
LEAST_OF_CYCLE = 0.1
LAST_RATE = 0.01


def paper_rate_at(part: float) -> float:
    """The learning rate over the largest, Franchini & Krevor (2020), section 2.2, scaled to the training's length.

    Theirs is a sine with a period of 20,000 updates; from update 30,000 to 100,000 it decays exponentially. The
    paper does not give its limits.
    """
    if part < CYCLIC_PART:
        return LEAST_OF_CYCLE + (1 - LEAST_OF_CYCLE) * 0.5 * (1 - math.cos(2 * math.pi * part / PERIOD))
    return math.exp(math.log(LAST_RATE) * (part - CYCLIC_PART) / (1 - CYCLIC_PART))


def _build(_settings: TrainingSettings, _material: Material) -> nn.Module:
    return PaperNet()


def _loss(answers: torch.Tensor, scene: Scene, material: Material) -> HungarianLosses:
    return hungarian_loss(answers, truth_of(scene, material))


PAPER = Method(_build, _loss, read, paper_rate_at, given, ImageExamination)
