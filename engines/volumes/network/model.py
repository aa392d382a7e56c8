"""A volume network's file opened with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.engine import BackEndError
from engines.network.model import INPUT, LONGEST_RUN_S, OUTPUT, TRIAL_S
from engines.network.session import OnnxSession
from engines.volumes.model import VolumeModel
from engines.volumes.network.layout import CHANNELS, STEP, STRIDE
from engines.volumes.network.model_card import VolumeCard, volume_card_of, volume_model_of
from stream.errors import ConfigurationError

TRIAL_PX, TRIAL_SLICES = 32, 4
"""Size of the volume that a network is tried out on."""


class VolumeOnnxModel:
    """The network of a `.onnx` file and its metadata. Each call runs on the calling thread; any thread may call.

    Raises `ConfigurationError` for a file that is missing, is not ONNX, is no volume network of liveptv, is of a
    newer version, or does not finish a small volume in time.
    """

    backend = "onnxruntime"
    device = "cpu"
    precision = "float32"

    def __init__(self, path: Path) -> None:
        self._session = OnnxSession(path)
        self.metadata = self._session.metadata
        self.path = path
        self.card: VolumeCard = volume_card_of(self.metadata, str(path))
        self.volume_model: VolumeModel = volume_model_of(self.metadata, self.card, str(path))
        if self._session.ends != [[INPUT], [OUTPUT]]:
            raise ConfigurationError(
                f"{path} has inputs and outputs {self._session.ends}, not {INPUT} and {OUTPUT}; it is not a "
                "liveptv model"
            )
        self._try_out()

    def _try_out(self) -> None:
        """Run the network on a small volume, for a limited time, as a file can hold an endless loop."""
        small = np.zeros((1, TRIAL_SLICES, TRIAL_PX, TRIAL_PX), np.float32)
        try:
            shape = self._session.run(OUTPUT, {INPUT: small}, TRIAL_S, "a small volume").shape
        except BackEndError as error:
            raise ConfigurationError(f"{error}; it is not a liveptv model") from error
        except Exception as error:  # ONNX Runtime's exceptions have no common class but this one
            detail = " ".join(str(error).split())
            raise ConfigurationError(f"{self.path} cannot be run: {detail}; train it again") from error
        wanted = (1, TRIAL_SLICES // STEP, CHANNELS, TRIAL_PX // STRIDE, TRIAL_PX // STRIDE)
        if shape != wanted:
            raise ConfigurationError(
                f"the model's output has the shape {shape}, which this version cannot read; update liveptv"
            )

    def __call__(self, volumes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map (1, S, H, W), S even, H and W multiples of 8, to planes (1, S/2, values, H/4, W/4), float32."""
        size = " x ".join(map(str, volumes.shape[1:]))
        return self._session.run(OUTPUT, {INPUT: volumes}, LONGEST_RUN_S, f"one volume of {size} voxels")
