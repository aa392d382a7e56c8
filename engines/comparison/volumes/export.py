"""Writes a trained DetNet3D or DM-DetNet3D as one ONNX file, with its card."""

from __future__ import annotations

import logging
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.export import Dim

from engines.comparison.volumes.card import HourglassCard
from engines.comparison.volumes.hourglass import Hourglass
from engines.comparison.volumes.input import MULTIPLE
from engines.comparison.volumes.kinds import Kind
from engines.comparison.volumes.model import INPUT, OUTPUT, HourglassModel
from engines.network.card_text import KEY
from stream.errors import ConfigurationError
from stream.unfinished_files import written_beside

OPSET = 18
EXAMPLE = (4, 24, 16)
AGREEMENT = 1e-3
"""Largest difference between the maps of ONNX Runtime and torch; the maps are within 0 to 1."""
LIBRARIES = ("liveptv", "torch", "onnx")


class _Map(nn.Module):
    """The network with the sigmoid that its losses contain."""

    def __init__(self, network: Hourglass) -> None:
        super().__init__()
        self.network = network

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.network(volume).sigmoid()
        return answer


def export(
    path: Path,
    kind: Kind,
    weights: dict[str, Any],
    *,
    threshold: float,
    made_from: str,
    training: dict[str, Any],
) -> None:
    """Write the file; it gets its name once ONNX Runtime gives what torch gives.

    Raises `ConfigurationError` where it does not, `OutputError` if the file cannot be written.
    """
    network = Hourglass()
    network.load_state_dict(weights)
    mapped = _Map(network).eval()
    card = HourglassCard(
        kind=kind,
        threshold=threshold,
        made_from=made_from,
        training=training,
        versions={name: version(name) for name in LIBRARIES},
    )
    given = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1, *EXAMPLE)).astype(np.float32))
    with written_beside(path, overwrite=True) as part:
        _write(part, mapped, given)
        model = onnx.load(str(part))
        onnx.helper.set_model_props(model, {KEY: card.model_dump_json()})
        onnx.save(model, str(part))
        with torch.no_grad():
            expected = mapped(given).numpy()[0, 0]
        apart = float(np.abs(HourglassModel(part).map_of(given.numpy()[0, 0]) - expected).max())
        if not apart < AGREEMENT:
            raise ConfigurationError(f"ONNX Runtime and torch differ by {apart:.2g} of 1 in {path.name}")


def _write(path: Path, network: nn.Module, given: torch.Tensor) -> None:
    slices, height, width = (Dim(name, min=1, max=1 << 14) for name in ("slices", "height", "width"))
    sizes = {2: MULTIPLE[0] * slices, 3: MULTIPLE[1] * height, 4: MULTIPLE[2] * width}
    chatter = logging.getLogger("torch.onnx")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about itself
            torch.onnx.export(
                network,
                (given,),
                str(path),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamic_shapes=(sizes,),
                external_data=False,
                dynamo=True,
                verbose=False,
            )
    finally:
        chatter.setLevel(level)
