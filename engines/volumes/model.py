"""Reads the calibration of volumes: PSF, noise and voxel size. See `layout` for the file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import h5py

from engines.volumes.layout import GROUP, KIND, KIND_ATTRIBUTE, NOISE, PSF
from engines.volumes.psf import VolumePsf
from engines.volumes.surroundings.noise import Noise
from stream.errors import ConfigurationError, SourceError
from stream.hdf5_reading import attribute, find, open_hdf5


@dataclass(frozen=True, slots=True)
class VolumeModel:
    """What a calibration says about volumes: `psf` with the voxel that it was measured with, and `noise`."""

    psf: VolumePsf
    noise: Noise

    @property
    def pixel_size_um(self) -> float:
        """Size of a pixel in the plane, um."""
        return self.psf.voxel_um[2]


def is_volume_model(path: Path) -> bool:
    """Whether a file is a calibration of volumes; False if it is none, or cannot be read."""
    try:
        with open_hdf5(path) as file:
            return _is_one(file)
    except SourceError:
        return False


def load_volume_model(path: Path) -> VolumeModel:
    """Read a calibration of volumes; raises `ConfigurationError` if it is none or is damaged."""
    try:
        with open_hdf5(path) as file:
            if not _is_one(file):
                raise ConfigurationError(
                    f"{path} is no calibration for volumes; make one with `liveptv calibrate --volume`"
                )
            group = find(file, GROUP)
            psf = find(group, PSF) if isinstance(group, h5py.Group) else None
            if psf is None:
                raise ConfigurationError(f"{path} has no PSF; calibrate again")
            return VolumeModel(VolumePsf.load(psf), _noise(group, path))
    except SourceError as error:
        raise ConfigurationError(f"{error}; calibrate again") from error


def _is_one(file: h5py.File) -> bool:
    kind = attribute(file, KIND_ATTRIBUTE)
    return isinstance(kind, str) and kind == KIND


def _noise(group: h5py.Group, path: Path) -> Noise:
    gain, offset, read_variance = (attribute(group, name, float) for name in NOISE)
    known = all(number is not None and math.isfinite(number) for number in (gain, offset, read_variance))
    if not known or gain < 0 or read_variance < 0:
        raise ConfigurationError(
            f"{path} has a noise that cannot be: gain {gain}, offset {offset}, read variance {read_variance}; "
            "calibrate again"
        )
    return Noise(float(gain), float(offset), float(read_variance))
