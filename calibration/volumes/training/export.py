"""Export of a trained volume network to one ONNX file, with its metadata, its weights and the PSF for the fit."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch.export import Dim

from calibration.training.checkpoint import Course
from calibration.training.export import LIBRARIES, SIGMA_RANGE, forget_where_it_was_made, write_graph
from calibration.training.settings import TrainingError, TrainingSettings
from calibration.volumes.training.material import VolumeMaterial
from calibration.volumes.training.scoring import SCORING_SEED, sigma_ratios
from engines.network.card_text import KEY
from engines.network.model import INPUT
from engines.network.weights import KEY as WEIGHTS
from engines.network.weights import pack, unpack
from engines.volumes.network.agreement import SINGLE, difference, drawn_volume
from engines.volumes.network.architecture import Planes, VolumeNet
from engines.volumes.network.layout import BLOCK_PX, STEP
from engines.volumes.network.model import VolumeOnnxModel
from engines.volumes.network.model_card import PSF_KEY, NoiseCard, VolumeCard
from engines.volumes.psf import VolumePsf
from stream.unfinished_files import written_beside

EXAMPLE = (1, 8, 48, 64)
"""Shape of the volume that the graph is traced with; its axes may have any length afterwards."""


def measure_sigma_scale(
    material: VolumeMaterial, settings: TrainingSettings, weights: dict[str, Any]
) -> tuple[float, float, float, float]:
    """Root mean square of error over standard error (x, y, z, brightness) on held-out volumes; 1 where unclear."""
    ratios = sigma_ratios(_network(settings.size, weights), material, SCORING_SEED + 2)
    low, high = SIGMA_RANGE
    if not all(low < ratio < high for ratio in ratios):
        return 1.0, 1.0, 1.0, 1.0
    return ratios


def make_card(
    material: VolumeMaterial,
    settings: TrainingSettings,
    course: Course,
    calibration_sha256: str = "",
    sigma_scale: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> VolumeCard:
    """The model's metadata; its scores are those of the weights that were kept."""
    start = None if settings.start_from is None else settings.start_from.name
    kept = [s for s in course.scores if s["trained_s"] <= course.best_at_s + 0.1]
    noise = material.noise
    return VolumeCard(
        noise=NoiseCard(gain=noise.gain, offset=noise.offset, read_variance=noise.read_variance),
        light=material.light,
        sigma_scale=sigma_scale,
        size=settings.size,
        made_from=material.made_from,
        calibration_sha256=calibration_sha256,
        training=settings.model_dump(mode="json", exclude={"checkpoint", "start_from"})
        | {"start_from": start},
        scores=kept[-1] if kept else {},
        versions={name: version(name) for name in LIBRARIES},
    )


def export(path: Path, weights: dict[str, Any], card: VolumeCard, psf: VolumePsf) -> None:
    """Write the model; the file gets its name only once ONNX Runtime and torch have given the same answer.

    Raises `TrainingError` where they do not, `OutputError` if the file cannot be written.
    """
    network = _network(card.size, weights)
    layers, rows, columns = (Dim(name, min=1, max=512) for name in ("layers", "rows", "columns"))
    sizes = {INPUT: {1: STEP * layers, 2: BLOCK_PX * rows, 3: BLOCK_PX * columns}}
    with written_beside(path, overwrite=True) as part:
        write_graph(part, Planes(network), {INPUT: torch.zeros(EXAMPLE)}, sizes)
        model = onnx.load(str(part))
        forget_where_it_was_made(model)
        properties = {
            KEY: card.model_dump_json(),
            WEIGHTS: pack({name: value.numpy() for name, value in weights.items()}),
            PSF_KEY: psf.to_json(),
        }
        onnx.helper.set_model_props(model, properties)
        onnx.save(model, str(part))
        _check(part, network)


def read_volume_weights(path: Path, size: str) -> dict[str, Any]:
    """The weights of a model to train further.

    Raises `ConfigurationError` for a file that is no volume network or has no weights, `TrainingError` for another
    size.
    """
    model = VolumeOnnxModel(path)
    if model.card.size != size:
        raise TrainingError(
            f"{path} is a {model.card.size} network; pass --size {model.card.size} to start from it"
        )
    return {name: torch.from_numpy(array) for name, array in unpack(model.metadata, str(path)).items()}


def _network(size: str, weights: dict[str, Any]) -> VolumeNet:
    network = VolumeNet(size)
    network.load_state_dict(weights)
    network.eval().requires_grad_(False)
    return network


def _check(path: Path, network: VolumeNet) -> None:
    model = VolumeOnnxModel(path)
    drawn = drawn_volume(model)
    for volumes in (drawn, np.ascontiguousarray(drawn[:, :STEP, : 3 * BLOCK_PX, : 5 * BLOCK_PX])):
        with torch.no_grad():
            ours = network.planes(torch.from_numpy(volumes)).numpy()
        found = difference(model(volumes), ours)
        if not (found.probability <= SINGLE.probability and found.values <= SINGLE.values):
            raise TrainingError(
                f"the ONNX file differs from the network by {found.probability:.2g} in probability; report this"
            )
