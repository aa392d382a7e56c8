"""What a calibration of volumes finds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.volumes.beads.selecting import USED
from calibration.volumes.noise import Levels, MeasuredNoise
from calibration.volumes.psf.choosing import Choice
from calibration.volumes.psf.sections import Sections
from calibration.volumes.psf.variation import Variation
from engines.volumes.psf import VolumePsf

FloatArray = npt.NDArray[np.float64]
Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class BeadTable:
    """All candidates: columns (N,); `reason` is empty for the beads that were used, whose other columns are known.

    `time` is the volume, x, y and z are in um, z above the first slice. `sigma_*_um` are standard errors of the
    position, `width_*_um` each bead's own standard deviations and `width_error_*` their relative standard errors.
    """

    time: npt.NDArray[np.int64]
    x_um: FloatArray
    y_um: FloatArray
    z_um: FloatArray
    strength: FloatArray
    brightness: FloatArray
    sigma_x_um: FloatArray
    sigma_y_um: FloatArray
    sigma_z_um: FloatArray
    width_x_um: FloatArray
    width_y_um: FloatArray
    width_z_um: FloatArray
    width_error_x: FloatArray
    width_error_y: FloatArray
    width_error_z: FloatArray
    chi_square: FloatArray
    reason: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.time)

    @property
    def used(self) -> npt.NDArray[np.bool_]:
        """Which beads were used."""
        return np.asarray(self.reason == USED)

    def left_out(self) -> dict[str, int]:
        """Candidates that were not used, by reason, the most frequent first."""
        return dict(Counter(reason for reason in self.reason.tolist() if reason != USED).most_common())


@dataclass(frozen=True, slots=True, eq=False)
class VolumeCalibration:
    """PSF, noise and background of volumes (T, Z, H, W: `shape`) with voxels of `voxel_um` (z, y, x).

    `gaussian_um` are the standard deviations (z, y, x) of the common Gaussian of the beads, before any correction
    for their size; `gaussian_errors` are relative. `background` is the mean, lowest and highest of the
    background's map, grey values. `remarks` are lines about the stack, `warnings` about what was found.
    """

    psf: VolumePsf
    noise: MeasuredNoise
    levels: Levels
    choice: Choice
    gaussian_um: Triple
    gaussian_errors: Triple
    background: Triple
    beads: BeadTable
    sections: Sections
    variation: tuple[Variation, ...]
    shape: tuple[int, int, int, int]
    voxel_um: Triple
    lone_sigmas: float
    bead_diameter_um: float | None = None
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
