"""Reads the calibration of volumes: PSF, noise and voxel size. See `layout` for the file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import h5py

from engines.volumes.layout import GROUP, KIND, KIND_ATTRIBUTE, NOISE, PSF, SCHEMA_VERSION
from engines.volumes.psf import VolumePsf
from engines.volumes.surroundings.noise import Noise
from stream.errors import ConfigurationError
from stream.hdf5_reading import attribute, find

VERSION_ATTRIBUTE = "schema_version"


@dataclass(frozen=True, slots=True)
class VolumeModel:
    """What a calibration says about volumes: `psf` with the voxel that it was measured with, and `noise`."""

    psf: VolumePsf
    noise: Noise

    @property
    def pixel_size_um(self) -> float:
        """Size of a pixel in the plane, um."""
        return self.psf.voxel_um[2]

    @property
    def z_step_um(self) -> float:
        """Distance of two slices, um."""
        return self.psf.voxel_um[0]


def is_volume_model(path: Path) -> bool:
    """Whether a file is a calibration of volumes; False if it is none, or cannot be read."""
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get(KIND_ATTRIBUTE, "")) == KIND
    except (OSError, RuntimeError, LookupError, ValueError, TypeError):
        return False


def load_volume_model(path: Path) -> VolumeModel:
    """Read a calibration of volumes; raises `ConfigurationError` if it is none or is damaged."""
    try:
        with h5py.File(path, "r") as file:
            if str(file.attrs.get(KIND_ATTRIBUTE, "")) != KIND:
                raise ConfigurationError(f"{path} is no calibration for volumes; make one: liveptv calibrate --volume")
            version = int(file.attrs.get(VERSION_ATTRIBUTE, SCHEMA_VERSION))
            if version > SCHEMA_VERSION:
                raise ConfigurationError(
                    f"{path} is a calibration of version {version}, made by a later liveptv; update, or calibrate again"
                )
            group = find(file, GROUP)
            psf = None if group is None else find(group, PSF)
            if group is None or psf is None:
                raise KeyError(f"{GROUP}/{PSF}")
            gain, offset, read_variance = (float(attribute(group, name)) for name in NOISE)
            if not (0 <= gain < math.inf and math.isfinite(offset) and 0 <= read_variance < math.inf):
                raise ValueError(f"a noise of gain {gain:g}, offset {offset:g} and variance {read_variance:g}")
            return VolumeModel(VolumePsf.load(psf), Noise(gain, offset, read_variance))
    except ConfigurationError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as a calibration for volumes ({error}); calibrate again"
        ) from error
