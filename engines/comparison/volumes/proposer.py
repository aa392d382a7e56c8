"""DetNet3D or DM-DetNet3D as a proposer: the maxima of its map, in whole voxels as published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.comparison.volumes.card import HourglassCard
from engines.comparison.volumes.maxima import local_maxima
from engines.comparison.volumes.model import HourglassModel
from engines.volumes.proposal import Proposals
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import Noise


class HourglassProposer:
    """The network of a file (.onnx). Raises `ConfigurationError` for a file that does not hold one.

    `threshold` is the least value of the map that is proposed; left out: that of the file. The value of the map is
    given as the probability, which it is only roughly: DM-DetNet3D's is the height of a blurred map.
    """

    def __init__(self, path: Path, threshold: float | None = None) -> None:
        self._model = HourglassModel(path)
        self._threshold = self.card.threshold if threshold is None else threshold

    @property
    def card(self) -> HourglassCard:
        """What the file says of itself."""
        return self._model.card

    def propose(
        self,
        image: npt.NDArray[Any],
        missing: npt.NDArray[np.bool_],
        background: Background,
        noise: Noise,
    ) -> Proposals:
        """The maxima of the map of a volume (Z, H, W), but those in slices that are `missing` (Z,).

        Background and noise are not used: the network has its own idea of them.
        """
        voxels, values = local_maxima(self._model(image, missing), self._threshold)
        there = ~missing[voxels[:, 0]]
        z, y, x = voxels[there].astype(np.float64).T
        unknown = np.full(z.size, np.nan)
        return Proposals(x, y, z, unknown, unknown.copy(), values[there])
