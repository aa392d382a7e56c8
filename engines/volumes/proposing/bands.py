"""A filter run over a volume in bands of rows, and the maxima of its answer; what the two filters share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.volumes.proposal import Proposals
from engines.volumes.proposing.maxima import HALO, local_maxima
from engines.volumes.proposing.peaks import between_voxels
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import Noise

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Triple = tuple[float, float, float]
Fill = Callable[[int, Float32Array], None]
"""Fills an array (Z, B, W) with the answer for the B rows from a first one."""

BAND = 32
"""Rows filtered at a time: a band of 10 slices of 512 columns fits the second cache of a processor."""
MOST_IN_A_BAND = 100_000
"""Places of a band; only noise far from what it was taken for has more, and the others are then left out."""
PROBES, PROBE_ROWS = 3, 16
"""Bands from which the noise of the filtered volume is measured, and their rows: a tenth of 512 rows."""
FEWEST_VALUES = 100
LEAST_SCALE, LARGEST_SCALE = 0.5, 50.0
HALF_NORMAL = 0.6745
"""Median of the size of normal noise, in standard deviations."""


class BandFilter(ABC):
    """A proposer for spots of `sigma_voxels` (z, y, x): the maxima of a filter's answer.

    The answer is in standard deviations of the noise; those of at least `least_strength` are proposed.
    """

    def __init__(self, sigma_voxels: Triple, least_strength: float, *, between: bool = True) -> None:
        self.sigma_voxels = sigma_voxels
        self.least_strength = least_strength
        self._between = between

    @abstractmethod
    def _filler(
        self, image: npt.NDArray[Any], missing: BoolArray, background: Background, noise: Noise, rows: int
    ) -> Fill:
        """What fills bands of up to `rows` rows with the answer."""

    @abstractmethod
    def _amplitude(
        self, x: FloatArray, y: FloatArray, z: FloatArray, shape: tuple[int, ...], missing: BoolArray
    ) -> FloatArray:
        """Height (N,) of a spot's peak at places in voxels, in units of a voxel's noise, over the answer."""

    def noise_scale(
        self, image: npt.NDArray[Any], missing: BoolArray, background: Background, noise: Noise
    ) -> float:
        """Standard deviation of the filtered background over that which independent noise would have.

        More than 1 where the noise of neighbours is alike, or the background has structure of a spot's size. From
        the values below the background, which particles hardly change.
        """
        depth, height, width = image.shape
        rows = min(PROBE_ROWS, height)
        fill = self._filler(image, missing, background, noise, rows)
        out = np.empty((depth, rows, width), np.float32)
        values = []
        for part in range(PROBES):
            fill(int((height - rows) * (part + 0.5) / PROBES), out)
            below = out[~missing][:, ::2, ::2].ravel()
            values.append(-below[below < 0])
        sizes = np.concatenate(values)
        if sizes.size < FEWEST_VALUES:
            return 1.0
        return float(np.clip(np.median(sizes) / HALF_NORMAL, LEAST_SCALE, LARGEST_SCALE))

    def propose(
        self, image: npt.NDArray[Any], missing: BoolArray, background: Background, noise: Noise
    ) -> Proposals:
        """The places in a volume (Z, H, W) where the filter's answer is largest; see `Proposer`."""
        if bool(missing.all()):
            return Proposals.none()
        depth, height, width = image.shape
        fill = self._filler(image, missing, background, noise, BAND + 2 * HALO)
        band = np.empty(depth * min(height, BAND + 2 * HALO) * width, np.float32)
        room = np.empty((4, min(MOST_IN_A_BAND, band.size // 4 + 1)))
        parts = []
        for start in range(0, height, BAND):
            stop = min(height, start + BAND)
            first, last = max(0, start - HALO), min(height, stop + HALO)
            # contiguous, as kernels are compiled for one layout
            out = band[: depth * (last - first) * width].reshape(depth, last - first, width)
            fill(first, out)
            count = local_maxima(out, first, start, stop, self.least_strength, room, 0)
            found = room[:, : min(count, room.shape[1])].copy()
            parts.append(between_voxels(out, first, found) if self._between else found)
        table = np.concatenate(parts, axis=1)
        x, y, z, strength = table[:, np.argsort(-table[3], kind="stable")]
        spread = np.sqrt(noise.variance(background.at(x, y, z)))
        amplitude = strength * spread * self._amplitude(x, y, z, image.shape, missing)
        return Proposals(x, y, z, amplitude, strength, np.full(x.size, np.nan))


def at(profile: FloatArray, place: FloatArray) -> FloatArray:
    """A profile (N,) of slices, rows or columns at places between them."""
    return np.asarray(np.interp(place, np.arange(profile.size), profile))
