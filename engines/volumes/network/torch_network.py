"""A volume network's file run by torch, on the processor or on an NVIDIA GPU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from engines.network.weights import unpack
from engines.volumes.network.architecture import WIDTHS, VolumeNet
from engines.volumes.network.model import VolumeOnnxModel
from stream.errors import ConfigurationError


def network_of(model: VolumeOnnxModel) -> VolumeNet:
    """The network (evaluating) of a model file, in single precision on the processor.

    Raises `ConfigurationError` where the file does not carry its weights, or they are of another network.
    """
    name, size = str(model.path), model.card.size
    if size not in WIDTHS:
        raise ConfigurationError(
            f"{name} holds a network of size {size!r}, which this version does not know; update liveptv"
        )
    weights = {key: torch.from_numpy(array) for key, array in unpack(model.metadata, name).items()}
    network = VolumeNet(size)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigurationError(
            f"the weights in {name} are not those of a {size} network for volumes; train it again: "
            f"{' '.join(str(error).split())}"
        ) from error
    network.eval().requires_grad_(False)
    return network


class TorchVolumeNetwork:
    """Planes like `VolumeOnnxModel`, calculated by torch; any thread may call.

    On a processor one thread a call. On a GPU in half precision with `half`.
    """

    backend = "torch"

    def __init__(self, model: VolumeOnnxModel, device: str = "cpu", *, half: bool = False) -> None:
        if device == "cpu":
            torch.set_num_threads(1)  # volumes are worked on in parallel, not parts of them
        self.device, self._half = device, half and device != "cpu"
        self.precision = "float16" if self._half else "float32"
        self._network = network_of(model).to(device)

    def __call__(self, volumes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map (1, S, H, W) to planes (1, S/2, values, H/4, W/4)."""
        with (
            torch.inference_mode(),
            torch.autocast(torch.device(self.device).type, dtype=torch.float16, enabled=self._half),
        ):
            planes = self._network.planes(torch.from_numpy(volumes).to(self.device))
            result: npt.NDArray[np.float32] = planes.float().cpu().numpy()
        return result
