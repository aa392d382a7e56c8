"""Held-out images with which the training loop chooses the best weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from calibration.training.material import Material
from calibration.training.method import Method
from calibration.training.scoring import HeldOut
from calibration.training.settings import TrainingSettings

HELD_OUT_IMAGES = 160
AT_ONCE = 16


class ImageExamination:
    """The loss and the scores of networks that read images, on images of `HeldOut`."""

    def __init__(self, settings: TrainingSettings, material: Material, method: Method) -> None:
        self._material, self._method = material, method
        self._held_out = HeldOut(material, settings.scored(HELD_OUT_IMAGES))

    @torch.no_grad()
    def __call__(self, network: nn.Module, device: torch.device) -> tuple[float, dict[str, Any]]:
        """The loss and the scores."""

        def detect(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            maps: npt.NDArray[np.float32] = network(torch.from_numpy(images).to(device)).float().cpu().numpy()
            return maps

        scores = self._held_out.score(detect, read=self._method.reader(self._material.learnt))
        return self._loss(network, device), scores.summary()

    def _loss(self, network: nn.Module, device: torch.device) -> float:
        scene = self._held_out.scene
        images = self._method.given(scene, self._material)
        answers = [network(some.to(device)) for some in images.split(self._held_out.at_once(AT_ONCE))]
        return float(self._method.loss(torch.cat(answers), scene, self._material).total)
