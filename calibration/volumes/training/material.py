"""Training material of the network for volumes: what is drawn, and the PSF that the fit behind it uses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.volumes.drawing.placing import Crowd
from calibration.volumes.drawing.source import VolumeSource
from engines.volumes.network.architecture import STEM_PX, STEM_SLICES

PLACES_PX, PLACES_SLICES = (-1.0, 1.0), (-0.5, 0.5)
"""Offsets from a cell's centre at which the stem's first filters look for a particle: no place of the cell is
farther than a pixel and half a slice from one."""


@dataclass(frozen=True, slots=True)
class VolumeMaterial:
    """Sources to train on, used in turn, and the source of the scores. `noise_contrast` is the input's noise."""

    training: tuple[VolumeSource, ...]
    made_from: str
    noise_contrast: float = 1.0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def scoring(self) -> VolumeSource:
        """The first source; what is scored takes its optics, noise and background."""
        return self.training[0]

    def templates(self) -> npt.NDArray[np.float32]:
        """Matched filters (8, 4, 8, 8) for particles at eight places of a cell: sums of squares of 1."""
        sigma_z, sigma_y, sigma_x = self.scoring.sigma
        filters = []
        for dz in PLACES_SLICES:
            for dy in PLACES_PX:
                for dx in PLACES_PX:
                    z = _profile(STEM_SLICES, dz, sigma_z)
                    y, x = _profile(STEM_PX, dy, sigma_y), _profile(STEM_PX, dx, sigma_x)
                    one = z[:, None, None] * y[:, None] * x
                    filters.append(one / math.sqrt(float((one**2).sum())))
        return np.asarray(filters, np.float32)


def _profile(size: int, off: float, sigma: float) -> npt.NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * ((np.arange(size) - 0.5 * (size - 1) - off) / sigma) ** 2))


def sources_for(source: VolumeSource) -> tuple[VolumeSource, ...]:
    """The sources of a training: two of three batches as they come, one of crowds in which more are close."""
    close = replace(source, crowd=Crowd(filled=(4e-3, 0.06), grouped=0.8, near=(0.6, 2.0)))
    return source, source, close
