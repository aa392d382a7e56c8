"""Preparation of volumes for the network: background subtracted, in units of the noise, absent slices marked."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from engines.volumes.network.layout import ABSENT, BLOCK_PX, STEP
from engines.volumes.proposing.filters import coarse_row
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import Noise

Float32Array = npt.NDArray[np.float32]


def padded_shape(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Shape of the network's input for a volume (Z, H, W)."""
    depth, height, width = shape
    return (
        1,
        -(-depth // STEP) * STEP,
        -(-height // BLOCK_PX) * BLOCK_PX,
        -(-width // BLOCK_PX) * BLOCK_PX,
    )


class VolumePreparation:
    """Fills the input (1, S, H', W') from volumes (Z, H, W); belongs to one thread.

    What is added beside the image is 0, like its background; what is added along z is absent.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.input: Float32Array = np.zeros(padded_shape(shape), np.float32)
        self.input[0, shape[0] :] = ABSENT

    def fill(
        self,
        image: npt.NDArray[Any],
        missing: npt.NDArray[np.bool_],
        background: Background,
        noise: Noise,
    ) -> None:
        """Prepare a volume of uint8 or uint16."""
        spread = np.asarray(noise.variance(background.grid) ** -0.5, np.float32)
        _fill(image, missing, background.grid, spread, background.cell_px, self.input[0])


@njit(cache=True, nogil=True)
def _fill(image: Any, missing: Any, grid: Any, spread: Any, cell_px: int, out: Any) -> None:
    depth, height, width = image.shape
    below, factor = np.empty(width, np.float32), np.empty(width, np.float32)
    for k in range(depth):
        if missing[k]:
            out[k] = ABSENT
            continue
        out[k, height:] = 0.0
        for row in range(height):
            coarse_row(grid[k], cell_px, row, below)
            coarse_row(spread[k], cell_px, row, factor)
            source, target = image[k, row], out[k, row]
            for i in range(width):
                target[i] = (np.float32(source[i]) - below[i]) * factor[i]
            target[width:] = 0.0
