"""The network for volumes as a method of the common training loop."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from calibration.training.loss import Losses
from calibration.training.method import Method
from calibration.training.settings import TrainingSettings
from calibration.training.trainer import rate_at
from calibration.volumes.drawing.source import VolumeScene
from calibration.volumes.training.loss import VolumeTargets, volume_loss
from calibration.volumes.training.material import VolumeMaterial
from calibration.volumes.training.scoring import VolumeExamination
from engines.volumes.network.architecture import VolumeNet
from engines.volumes.network.decode import decode
from engines.volumes.network.layout import STEP, STRIDE


def targets_of(scene: VolumeScene, device: torch.device | str = "cpu") -> VolumeTargets:
    """The particles of a scene in the units of the network."""
    _, slices, height, width = scene.images.shape
    per_cell = np.array([STEP, STRIDE, STRIDE])
    cells = np.array([slices, height, width]) // per_cell
    place = (scene.centres + 0.5) / per_cell
    cell = np.clip(np.floor(place).astype(np.int64), 0, cells - 1)
    off = (place - cell - 0.5)[:, ::-1]
    values = np.column_stack([off, scene.brightness]).astype(np.float32)
    return VolumeTargets(
        *(torch.from_numpy(np.ascontiguousarray(v)).to(device) for v in (scene.volume, cell, values))
    )


def _build(settings: TrainingSettings, material: VolumeMaterial) -> nn.Module:
    network = VolumeNet(settings.size)
    network.start_with(torch.from_numpy(material.templates()))
    return network


def _loss(maps: torch.Tensor, scene: VolumeScene, _material: VolumeMaterial) -> Losses:
    return volume_loss(maps, targets_of(scene, maps.device))


def _input(scene: VolumeScene, _material: VolumeMaterial) -> torch.Tensor:
    return torch.from_numpy(scene.images)


def _examine(_settings: TrainingSettings, material: VolumeMaterial, how: Method) -> VolumeExamination:
    return VolumeExamination(material, how)


def half_pays() -> bool:
    """Whether this processor multiplies in bfloat16 faster than in single precision."""
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(asked and asked())


def method() -> Method:
    """How the network for volumes is trained on this computer."""
    return Method(_build, _loss, decode, rate_at, _input, _examine, half_pays)
