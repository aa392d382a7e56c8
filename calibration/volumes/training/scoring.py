"""Scores of a network on held-out volumes, which it was never trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import nn

from calibration.training.method import Method
from calibration.volumes.drawing.placing import Crowd
from calibration.volumes.drawing.source import VolumeScene, VolumeSource
from calibration.volumes.drawing.surroundings import Surroundings
from calibration.volumes.training.material import VolumeMaterial
from engines.volumes.network.decode import ROW, decode, planes_of

FloatArray = npt.NDArray[np.float64]

SCORING_SEED = 2**31
SIDE_PX = 128
GATE_VOXELS = 5.0
"""Largest distance of a detection from its particle: that of the Particle Tracking Challenge."""
THRESHOLD = 0.5
SNRS = (1.0, 2.0, 4.0, 7.0)
SLICES = 10
VOLUMES = 6
"""Volumes of 128 x 128 x 10 voxels for each signal-to-noise ratio."""
FILLED = 0.0066
"""Part of the volume that particles fill: 500 in the challenge's volume."""
EVEN = Surroundings(level=1.0, uneven=0.0, offset=(0.0, 0.0), uneven_offset=0.0, noise=0.0)


@dataclass(frozen=True, slots=True)
class Counted:
    """Detections compared with the truth: numbers, and the squared distances of correct pairs in voxels."""

    true: int
    found: int
    right: int
    squares: FloatArray

    @property
    def f1(self) -> float:
        """2 right / (true + found)."""
        return 2 * self.right / max(1, self.true + self.found)

    @property
    def rmse(self) -> float:
        """Root mean square of the distances in voxels; NaN without a pair."""
        return math.sqrt(float(self.squares.mean())) if self.right else math.nan


def compare(true: list[FloatArray], found: list[FloatArray], gate: float = GATE_VOXELS) -> Counted:
    """Match centres (N, 3) found in each volume with the true ones, one to one, with the least sum of distances."""
    squares: list[FloatArray] = []
    for theirs, ours in zip(true, found, strict=True):
        if len(theirs) and len(ours):
            apart = cdist(theirs, ours)
            rows, columns = linear_sum_assignment(np.minimum(apart, gate))
            pairs = apart[rows, columns]
            squares.append(pairs[pairs < gate] ** 2)
    every = np.concatenate(squares) if squares else np.empty(0)
    return Counted(sum(map(len, true)), sum(map(len, found)), int(every.size), every)


def scenes_of(
    source: VolumeSource, seed: int, volumes: int = VOLUMES, filled: float = FILLED
) -> list[VolumeScene]:
    """For each of `SNRS` volumes over an even background, all particles as bright and anywhere in the stack."""
    scenes = []
    for number, snr in enumerate(SNRS):
        crowd = Crowd((filled, filled), 0.0, snr=(snr, snr), bright=0.0, spread=0.0, mixed=0.0, beyond=0.0)
        plain = replace(source, crowd=crowd, surroundings=EVEN, slices=(SLICES, SLICES), gaps=0.0, unlike=0.0)
        scenes.append(plain.draw(np.random.default_rng([seed, number]), (SIDE_PX, SIDE_PX), volumes))
    return scenes


class VolumeExamination:
    """The loss of networks on volumes of every signal-to-noise ratio and on some as they are trained on; scores."""

    def __init__(self, material: VolumeMaterial, method: Method, seed: int = SCORING_SEED) -> None:
        self._material, self._method = material, method
        self.scenes = scenes_of(material.scoring, seed)
        rng = np.random.default_rng([seed, len(SNRS)])
        self._like_training = [source.draw(rng, (SIDE_PX, SIDE_PX), VOLUMES) for source in material.training]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def __call__(self, network: nn.Module, device: torch.device) -> tuple[float, dict[str, Any]]:
        """The mean loss, and F1 and RMSE (voxels) at each signal-to-noise ratio."""
        losses: list[float] = []
        scores: dict[str, Any] = {}
        for snr, scene in zip(SNRS, self.scenes, strict=True):
            answers = self._answers(network, scene, device)
            losses.append(self._loss(answers, scene))
            counted = self.count(answers, scene)
            scores[f"f1_snr{snr:g}"] = round(counted.f1, 4)
            scores[f"rmse_snr{snr:g}"] = None if math.isnan(counted.rmse) else round(counted.rmse, 4)
        for scene in self._like_training:
            losses.append(self._loss(self._answers(network, scene, device), scene))
        return float(np.mean(losses)), scores

    def _answers(self, network: nn.Module, scene: VolumeScene, device: torch.device) -> torch.Tensor:
        images = self._method.given(scene, self._material)
        return torch.cat([network(one.to(device)).float().cpu() for one in images.split(1)])

    def _loss(self, answers: torch.Tensor, scene: VolumeScene) -> float:
        return float(self._method.loss(answers, scene, self._material).total)

    def count(self, answers: torch.Tensor, scene: VolumeScene, threshold: float = THRESHOLD) -> Counted:
        """The particles read from the answers, compared with those of the scene."""
        found = []
        for one in answers.numpy():
            rows = self._method.decode(planes_of(one))
            rows = rows[rows[:, ROW.index("probability")] >= threshold]
            found.append(rows[:, [ROW.index(axis) for axis in "zyx"]])
        true = [scene.centres[scene.volume == number] for number in range(len(found))]
        return compare(true, found)


def sigma_ratios(
    network: nn.Module, material: VolumeMaterial, seed: int
) -> tuple[float, float, float, float]:
    """Root mean square of error over standard error of x, y, z and brightness, of the particles that are found."""
    ratios: list[FloatArray] = []
    for scene in scenes_of(material.scoring, seed):
        for number, image in enumerate(torch.from_numpy(scene.images).split(1)):
            with torch.no_grad():
                rows = decode(planes_of(network(image)[0].numpy()))
            rows = rows[rows[:, ROW.index("probability")] >= THRESHOLD]
            mine = scene.volume == number
            true = np.column_stack([scene.centres[mine][:, ::-1], scene.brightness[mine]])
            if not (len(true) and len(rows)):
                continue
            apart = cdist(true[:, :3], rows[:, :3])
            first, second = linear_sum_assignment(np.minimum(apart, GATE_VOXELS))
            close = apart[first, second] < 0.5 * GATE_VOXELS
            pairs = first[close], second[close]
            ratios.append((true[pairs[0]] - rows[pairs[1], :4]) / rows[pairs[1], 4:8])
    if not ratios:
        return math.nan, math.nan, math.nan, math.nan
    x, y, z, brightness = np.sqrt(np.mean(np.concatenate(ratios) ** 2, axis=0)).tolist()
    return x, y, z, brightness
