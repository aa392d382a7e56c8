"""The matched filter as a proposer: every place whose answer is above the noise, faint ones included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.volumes.proposal import Proposals
from engines.volumes.proposing.filters import gaussian_half, worth
from engines.volumes.proposing.matched import BAND, strengths
from engines.volumes.proposing.maxima import HALO, local_maxima, shoulders
from engines.volumes.proposing.peaks import between_voxels
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import Noise

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

LEAST_STRENGTH = 2.8
"""Answer, in standard deviations, from which a maximum is proposed. A particle of 4.1 is then proposed with 95 %,
and noise 6 times in 10,000 voxels: what a particle is gets decided later, and needs to see the noise as well."""
SHOULDER_STRENGTH = 7.0
SHOULDER_CURVATURE = 5.0
"""A place without a maximum is proposed where the answer is above `SHOULDER_STRENGTH`, and its curvature is a maximum
of more than `SHOULDER_CURVATURE` standard deviations: that of two particles between 2 and 3 sigma apart."""
CURVATURE_NOISE = 1.94
"""Standard deviation of the curvature, sum of sigma^2 times second derivatives, of noise filtered by a Gaussian in
three dimensions, over that of the filtered noise: sqrt(3 * 3/4 + 6 * 1/4). In two it is sqrt(2)."""
SAME_PLACE = 1.0
"""Standard deviations of a spot within which a shoulder is the maximum beside it."""
MOST = 200_000
"""Proposals of a volume; those beyond are the ones in its last rows, and are counted."""
PROBES = 3
"""Bands of rows from which the noise of the filtered volume is measured."""
PROBE_ROWS = 16
LEAST_SCALE, LARGEST_SCALE = 0.5, 50.0
HALF_NORMAL = 0.6745
"""Median of the size of normal noise, in standard deviations."""


@dataclass(frozen=True, slots=True, eq=False)
class _Filter:
    """Kernels and scales (z, y, x) for a volume."""

    halves: tuple[Float32Array, Float32Array, Float32Array]
    worths: tuple[FloatArray, FloatArray, FloatArray]
    scales: tuple[Float32Array, Float32Array, Float32Array]
    inverse_spread: Float32Array


class MatchedFilter:
    """Proposes the maxima of the matched filter for a Gaussian spot of `sigma_voxels` (z, y, x)."""

    def __init__(
        self,
        sigma_voxels: tuple[float, float, float],
        least_strength: float = LEAST_STRENGTH,
        *,
        with_shoulders: bool = True,
    ) -> None:
        self.sigma_voxels = sigma_voxels
        self.least_strength = least_strength
        self._halves = tuple(gaussian_half(sigma) for sigma in sigma_voxels)
        self._with_shoulders = with_shoulders

    def noise_scale(
        self,
        image: npt.NDArray[Any],
        missing: npt.NDArray[np.bool_],
        background: Background,
        noise: Noise,
    ) -> float:
        """Standard deviation of the filtered background over that which independent noise would have.

        More than 1 where the noise of neighbours is alike, or the background has structure of a spot's size. From
        the values below the background, which particles hardly change.
        """
        plan = self._plan(image, missing, background, noise)
        height = image.shape[1]
        rows = min(PROBE_ROWS, height)
        values = []
        for part in range(PROBES):
            first = int((height - rows) * (part + 0.5) / PROBES)
            out, buffer = self._buffers(image, rows)
            self._fill(image, missing, background, plan, first, out, buffer)
            below = out[~missing][:, ::2, ::2].ravel()
            values.append(-below[below < 0])
        sizes = np.concatenate(values)
        if sizes.size < 100:
            return 1.0
        return float(np.clip(np.median(sizes) / HALF_NORMAL, LEAST_SCALE, LARGEST_SCALE))

    def propose(
        self,
        image: npt.NDArray[Any],
        missing: npt.NDArray[np.bool_],
        background: Background,
        noise: Noise,
    ) -> Proposals:
        """The places in a volume (Z, H, W) where the filter's answer is largest; see `Proposer`."""
        if bool(missing.all()):
            return Proposals.none()
        plan = self._plan(image, missing, background, noise)
        height = image.shape[1]
        found = np.empty((4, min(MOST, max(1000, image.size // 200))))
        beside = np.empty((4, 1000))
        parts = []
        for start in range(0, height, BAND):
            stop = min(height, start + BAND)
            first, last = max(0, start - HALO), min(height, stop + HALO)
            if start == 0 or last - first != out.shape[1]:
                out, buffer = self._buffers(image, last - first)
            self._fill(image, missing, background, plan, first, out, buffer)
            count = min(
                local_maxima(out, first, start, stop, self.least_strength, found, 0), found.shape[1]
            )
            table = found[:, :count]
            if self._with_shoulders:
                table = self._joined(table, self._shoulders(out, first, start, stop, beside))
            parts.append(between_voxels(out, first, table))
        return self._proposals(np.concatenate(parts, axis=1), background, noise, plan)

    def _plan(
        self,
        image: npt.NDArray[Any],
        missing: npt.NDArray[np.bool_],
        background: Background,
        noise: Noise,
    ) -> _Filter:
        present = (~missing, np.ones(image.shape[1], np.bool_), np.ones(image.shape[2], np.bool_))
        z, y, x = (worth(half, there) for half, there in zip(self._halves, present, strict=True))
        scales = tuple(np.asarray(np.maximum(w, 1e-12) ** -0.5 * (w > 1e-9), np.float32) for w in (z, y, x))
        spread = np.asarray(noise.variance(background.grid) ** -0.5, np.float32)
        return _Filter(self._halves, (z, y, x), scales, spread)  # type: ignore[arg-type]

    def _buffers(self, image: npt.NDArray[Any], rows: int) -> tuple[Float32Array, Float32Array]:
        depth, _, width = image.shape
        reach = self._halves[1].size - 1
        return np.empty((depth, rows, width), np.float32), np.empty((rows + 2 * reach, width), np.float32)

    def _fill(
        self,
        image: npt.NDArray[Any],
        missing: npt.NDArray[np.bool_],
        background: Background,
        plan: _Filter,
        first: int,
        out: Float32Array,
        buffer: Float32Array,
    ) -> None:
        strengths(
            image, missing, first, background.grid, background.cell_px, plan.inverse_spread, background.cell_px,
            *plan.halves, *plan.scales, buffer, out,
        )  # fmt: skip

    def _shoulders(
        self, field: Float32Array, first: int, start: int, stop: int, beside: FloatArray
    ) -> FloatArray:
        weights = np.array([sigma**2 for sigma in self.sigma_voxels])
        least = SHOULDER_CURVATURE * CURVATURE_NOISE
        count = shoulders(field, first, start, stop, weights, SHOULDER_STRENGTH, least, beside, 0)
        return beside[:, : min(count, beside.shape[1])]

    def _joined(self, maxima: FloatArray, more: FloatArray) -> FloatArray:
        """The maxima and those shoulders that have none beside them."""
        if not more.shape[1]:
            return maxima
        reach = np.array([max(1.0, SAME_PLACE * sigma) for sigma in self.sigma_voxels[::-1]])
        strong = maxima[:3, maxima[3] >= SHOULDER_STRENGTH]
        kept = [
            index
            for index in range(more.shape[1])
            if not (np.abs(strong - more[:3, index, None]) <= reach[:, None]).all(axis=0).any()
        ]
        return np.concatenate([maxima, more[:, kept]], axis=1)

    def _proposals(
        self, table: FloatArray, background: Background, noise: Noise, plan: _Filter
    ) -> Proposals:
        table = table[:, np.argsort(-table[3], kind="stable")]
        x, y, z, strength = table
        shares = [
            np.interp(place, np.arange(w.size), w)
            for place, w in zip((z, y, x), plan.worths, strict=True)
        ]
        spread = np.sqrt(noise.variance(background.at(x, y, z)))
        amplitude = strength * spread / np.sqrt(np.maximum(shares[0] * shares[1] * shares[2], 1e-12))
        return Proposals(x, y, z, amplitude, strength, np.full(x.size, np.nan))
