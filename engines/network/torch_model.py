"""The network of a model file in torch: the reference for all other back ends."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from engines.network.architecture import WIDTHS, ParticleNet, Size
from engines.network.model import OnnxModel
from engines.network.weights import unpack
from stream.errors import ConfigurationError


def network_of(model: OnnxModel, name: str) -> ParticleNet:
    """The network (evaluating) of a model file `name`, in single precision on the processor.

    Raises `ConfigurationError` where the file does not carry its weights, or they are of another network.
    """
    size = model.card.size
    if size not in WIDTHS:
        raise ConfigurationError(
            f"{name} holds a network of size {size!r}, which this version does not know; update liveptv"
        )
    weights = {key: torch.from_numpy(array) for key, array in unpack(model.metadata, name).items()}
    card = model.card
    network = ParticleNet(cast(Size, size), card.knee, card.field_shape, card.kinds, card.learnt)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigurationError(
            f"the weights in {name} are not those of a {size} network; train it again: "
            f"{' '.join(str(error).split())}"
        ) from error
    network.eval().requires_grad_(False)
    return network


class TorchModel:
    """Planes like `OnnxModel`, calculated by torch on the processor, one thread a call; any thread may call."""

    backend = "torch"
    device = "cpu"
    precision = "float32"

    def __init__(self, path: Path, model: OnnxModel) -> None:
        torch.set_num_threads(1)  # frames are worked on in parallel, not parts of them
        self._network = network_of(model, str(path))

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map (1, 1, H, W), H and W multiples of 16, to planes (1, planes, H/4, W/4)."""
        with torch.inference_mode():
            planes: npt.NDArray[np.float32] = self._network.planes(torch.from_numpy(images)).numpy()
        return planes
