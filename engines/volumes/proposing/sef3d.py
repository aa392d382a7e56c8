"""SEF3D, the spot-enhancing filter in three dimensions, as a detector of its own and for comparison.

Sage et al. 2005 (IEEE Trans. Image Process. 14, 1372): a Laplacian of Gaussian of the spot's size and the maxima
of its answer; in three dimensions Spilger et al. compare with it. Its positions are whole voxels there.
"""

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
from engines.volumes.proposing.filters import curved_half, gaussian_half, products
from engines.volumes.proposing.laplacian import laplacians
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import Noise


class LaplacianOfGaussian(BandFilter):
    """Proposes the maxima of the Laplacian of Gaussian for spots of `sigma_voxels` (z, y, x).

    Its answer is divided by the noise's standard deviation, at the ends of the stack as well. Positions are whole
    voxels unless `between` is set.
    """

    def __init__(self, sigma_voxels: Triple, least_strength: float, *, between: bool = False) -> None:
        super().__init__(sigma_voxels, least_strength, between=between)
        self._gauss = tuple(gaussian_half(sigma) for sigma in sigma_voxels)
        self._curved = tuple(curved_half(sigma) for sigma in sigma_voxels)

    def _powers(self, shape: tuple[int, ...], missing: BoolArray) -> list[FloatArray]:
        """Sums of products (3, N) of each axis: Gaussian squared, both, second derivative squared."""
        present = (~missing, np.ones(shape[1], np.bool_), np.ones(shape[2], np.bool_))
        return [
            np.stack([products(g, g, there), products(g, c, there), products(c, c, there)])
            for g, c, there in zip(self._gauss, self._curved, present, strict=True)
        ]

    def _filler(
        self, image: npt.NDArray[Any], missing: BoolArray, background: Background, noise: Noise, rows: int
    ) -> Fill:
        powers = [np.asarray(power, np.float32) for power in self._powers(image.shape, missing)]
        spread = np.asarray(noise.variance(background.grid) ** -0.5, np.float32)
        depth, _, width = image.shape
        reach = self._curved[1].size - 1
        lines = np.empty((2, rows + 2 * reach, width), np.float32)
        planes = np.empty((depth, rows, width), np.float32)

        (z, y, x), (curved_z, curved_y, curved_x) = self._gauss, self._curved
        power_z, power_y, power_x = powers

        def fill(first: int, out: Float32Array) -> None:
            laplacians(
                image, missing, first, background.grid, spread, background.cell_px,
                z, y, x, curved_z, curved_y, curved_x, power_z, power_y, power_x, lines, planes, out,
            )  # fmt: skip

        return fill

    def _amplitude(
        self, x: FloatArray, y: FloatArray, z: FloatArray, shape: tuple[int, ...], missing: BoolArray
    ) -> FloatArray:
        """What is over the answer: the noise's part divided by the answer to a spot of 1."""
        (gz, mz, cz), (gy, my, cy), (gx, mx, cx) = (
            (at(power[0], place), at(power[1], place), at(power[2], place))
            for power, place in zip(self._powers(shape, missing), (z, y, x), strict=True)
        )
        noise = cz * gy * gx + gz * cy * gx + gz * gy * cx
        noise = noise + 2 * (mz * my * gx + mz * gy * mx + gz * my * mx)
        answer = mz * gy * gx + gz * my * gx + gz * gy * mx
        return np.asarray(np.sqrt(np.maximum(noise, 0.0)) / np.maximum(answer, 1e-9))
