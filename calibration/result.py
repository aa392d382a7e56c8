"""The result of a calibration: PSF model, focal planes, labelled particles, noise and feature curves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.ambiguity import Ambiguity
from calibration.focal_planes import FocalPlanes
from calibration.noise import NoiseModel
from calibration.psf_model import PsfModel
from calibration.scan.faults import Fault
from calibration.surface import FocalSurface

FloatArray = npt.NDArray[np.float64]

USED = ""


@dataclass(frozen=True, slots=True, eq=False)
class ParticleTable:
    """All particles that were found, (N,) each.

    `z_um` is the focus position at which a particle sits at the mid-plane; with it the depth of its image taken
    at `focus` is `z_um - focus`. `reason` says why it was left out, or is empty. `misfit` is the part of its
    images' power that the PSF model does not explain. `complete` is False for particles cut by the image's edge.
    """

    x_um: FloatArray
    y_um: FloatArray
    z_um: FloatArray
    sigma_x_um: FloatArray
    sigma_y_um: FloatArray
    sigma_z_um: FloatArray
    brightness: FloatArray
    misfit: FloatArray
    neighbour_px: FloatArray
    complete: npt.NDArray[np.bool_]
    reason: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return self.x_um.size

    @property
    def used(self) -> npt.NDArray[np.bool_]:
        """Which of them have labels, (N,)."""
        kept: npt.NDArray[np.bool_] = self.reason == USED
        return kept

    def left_out(self) -> dict[str, int]:
        """How many were left out, by reason."""
        reasons, counts = np.unique(self.reason[~self.used], return_counts=True)
        return {str(reason): int(count) for reason, count in zip(reasons, counts, strict=True)}


@dataclass(frozen=True, slots=True, eq=False)
class FeatureCurves:
    """Features over depth: of the PSF (J,), and of the used traces' own images (M, K).

    `trace_z_um` (M, K) are the depths of these; all features are in contrast, `sigma_*_um` the widths of the
    generalised Gaussian of equation (3), `shape_*` its exponents.
    """

    z_um: FloatArray
    masked_signal: FloatArray
    local_variance: FloatArray
    sigma_x_um: FloatArray
    sigma_y_um: FloatArray
    shape_x: FloatArray
    shape_y: FloatArray
    trace_z_um: FloatArray
    trace_masked_signal: FloatArray
    trace_local_variance: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A finished calibration; `warnings` are what its user has to know before relying on it, one line each.

    Where several kinds of particles were found, `kinds` are their PSF models, the first of them `model`; empty
    where there is one.
    """

    model: PsfModel
    focal_planes: FocalPlanes
    particles: ParticleTable
    noise: NoiseModel
    curves: FeatureCurves
    ambiguity: Ambiguity
    surface: FocalSurface | None
    focus_um: FloatArray
    apparent_focus_um: FloatArray
    plane_used: npt.NDArray[np.bool_]
    repeats: int
    shape: tuple[int, int]
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    kinds: tuple[PsfModel, ...] = ()
