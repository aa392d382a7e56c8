"""The matched filter as a proposer: every place whose answer is above the noise, faint ones included."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from engines.volumes.proposing.bands import (
    BandFilter,
    BoolArray,
    Fill,
    Float32Array,
    FloatArray,
    Triple,
    at,
)
from engines.volumes.proposing.filters import gaussian_half, worth
from engines.volumes.proposing.matched import strengths
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import Noise

LEAST_STRENGTH = 2.8
"""Answer, in standard deviations, from which a maximum is proposed. A particle of 4.1 is then proposed with 95 %,
and noise 6 times in 10,000 voxels: what a particle is gets decided later, and needs to see the noise as well."""


class MatchedFilter(BandFilter):
    """Proposes the maxima of the matched filter for a Gaussian spot."""

    def __init__(self, sigma_voxels: Triple, least_strength: float = LEAST_STRENGTH) -> None:
        super().__init__(sigma_voxels, least_strength)
        self._halves = tuple(gaussian_half(sigma) for sigma in sigma_voxels)

    @property
    def skewness(self) -> float:
        """Skewness of the answer to noise whose own is 1."""
        part = 1.0
        for half in self._halves:
            kernel = np.concatenate([half[:0:-1], half]).astype(np.float64)
            part *= float((kernel**3).sum() / (kernel**2).sum() ** 1.5)
        return part

    def _worths(self, shape: tuple[int, ...], missing: BoolArray) -> list[FloatArray]:
        present = (~missing, np.ones(shape[1], np.bool_), np.ones(shape[2], np.bool_))
        return [worth(half, there) for half, there in zip(self._halves, present, strict=True)]

    def _filler(
        self, image: npt.NDArray[Any], missing: BoolArray, background: Background, noise: Noise, rows: int
    ) -> Fill:
        scales = [
            np.asarray(np.where(w > 1e-9, np.maximum(w, 1e-9) ** -0.5, 0.0), np.float32)
            for w in self._worths(image.shape, missing)
        ]
        spread = np.asarray(noise.variance(background.grid) ** -0.5, np.float32)
        reach = self._halves[1].size - 1
        buffer = np.empty((rows + 2 * reach, image.shape[2]), np.float32)

        (z, y, x), (scale_z, scale_y, scale_x) = self._halves, scales

        def fill(first: int, out: Float32Array) -> None:
            strengths(
                image, missing, first, background.grid, spread, background.cell_px,
                z, y, x, scale_z, scale_y, scale_x, buffer, out,
            )  # fmt: skip

        return fill

    def _amplitude(
        self, x: FloatArray, y: FloatArray, z: FloatArray, shape: tuple[int, ...], missing: BoolArray
    ) -> FloatArray:
        wz, wy, wx = self._worths(shape, missing)
        return np.asarray(np.maximum(at(wz, z) * at(wy, y) * at(wx, x), 1e-9) ** -0.5)
