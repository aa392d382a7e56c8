"""Training material of the network for volumes: what is drawn, and the PSF that the fit behind it uses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calibration.volumes.drawing.light import light_of
from calibration.volumes.drawing.placing import Crowd
from calibration.volumes.drawing.source import VolumeSource
from engines.volumes.model import load_volume_model
from engines.volumes.network.architecture import STEM_PX, STEM_SLICES
from engines.volumes.psf import VolumePsf
from engines.volumes.surroundings.noise import Noise

PLACES_PX, PLACES_SLICES = (-1.0, 1.0), (-0.5, 0.5)
"""Offsets from a cell's centre at which the stem's first filters look for a particle: no place of the cell is
farther than a pixel and half a slice from one."""
PHOTOELECTRONS = 10.0
"""Background in photoelectrons where a calibration does not say how much there is. Half of the volumes have up to
twice or half of it; what depends on it is the skewness of the noise, 0.3 here and 0.2 or 0.45 there."""
CLOSE = Crowd(filled=(4e-3, 0.06), grouped=0.8, near=(0.6, 2.0))
"""Crowds in which most particles overlap with another."""


@dataclass(frozen=True, slots=True, eq=False)
class VolumeMaterial:
    """Sources to train on, used in turn; the first one's optics, noise and background are those of the scores.

    `psf` and `noise` are for the fit behind the network, `light` is the background above the camera's offset.
    """

    training: tuple[VolumeSource, ...]
    psf: VolumePsf
    noise: Noise
    light: float
    made_from: str

    @property
    def scoring(self) -> VolumeSource:
        """What the scores are drawn with."""
        return self.training[0]

    def templates(self) -> npt.NDArray[np.float32]:
        """Matched filters (8, 4, 8, 8) for particles at eight places of a cell: sums of squares of 1."""
        filters = []
        for dz in PLACES_SLICES:
            for dy in PLACES_PX:
                for dx in PLACES_PX:
                    axes = [
                        (np.arange(size) - 0.5 * (size - 1) - off) * voxel
                        for size, off, voxel in zip(
                            (STEM_SLICES, STEM_PX, STEM_PX), (dz, dy, dx), self.psf.voxel_um, strict=True
                        )
                    ]
                    one = self.psf.value(*np.meshgrid(*axes, indexing="ij", sparse=True))
                    filters.append(one / math.sqrt(float((one**2).sum())))
        return np.asarray(filters, np.float32)


VolumeRecipe = Callable[[], VolumeMaterial]
"""Makes the material. Unlike the material, the recipe is small and can be sent to another process."""


def from_volume_calibration(path: Path, made_from: str) -> VolumeRecipe:
    """The material of a calibration for volumes. The recipe raises `ConfigurationError` for any other file."""
    return partial(_of_calibration, path, made_from)


def _of_calibration(path: Path, made_from: str) -> VolumeMaterial:
    model = load_volume_model(path)
    return material_for(model.psf, model.noise, made_from)


def material_for(psf: VolumePsf, noise: Noise, made_from: str, light: float | None = None) -> VolumeMaterial:
    """Material for particles of a PSF, with a camera's noise: three of four batches as they come, one of crowds.

    `light` is the background above the camera's offset in grey values.
    """
    if light is None:
        light = PHOTOELECTRONS * (noise.gain or max(noise.read_variance, 1.0) ** 0.5)
    source = VolumeSource(psf.sigma_voxels, noise, light, add_light=light_of(psf))
    return VolumeMaterial(
        (source, source, source, replace(source, crowd=CLOSE)), psf, noise, light, made_from
    )
