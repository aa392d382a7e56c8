"""The result of a calibration: PSF model, focal planes, labelled particles, noise and feature curves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.ambiguity import Ambiguity
from calibration.field.cross_validation import Validation
from calibration.field.named import NamedTerms
from calibration.focal_planes import FocalPlanes
from calibration.noise import NoiseModel
from calibration.psf_model import PsfModel
from calibration.scan.faults import Fault
from calibration.surface import FocalSurface

FloatArray = npt.NDArray[np.float64]

USED = ""
OTHER_KIND = "of another kind"


@dataclass(frozen=True, slots=True, eq=False)
class ParticleTable:
    """All particles that were found, (N,) each.

    `z_um` is the focus position at which a particle is seen at the mid-plane; with it the (local) depth of its
    image taken at `focus` is `z_um - focus`. Its height in the sample is less by the focal surface (`height_um` of
    `Calibration`). `reason` says why it was left out, or is empty. `misfit` is the part of its images' power that
    the PSF model does not explain. `complete` is False for particles cut by the image's edge. `kind` is the class
    of particle, 0 the most frequent; brightness, misfit and depth are by the PSF model of that kind.
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
    kind: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        if not self.kind.size:
            object.__setattr__(self, "kind", np.zeros(self.x_um.size, np.int64))

    def of(self, kind: int) -> ParticleTable:
        """The same with only the particles of one kind left in; all of them where there is no other."""
        if not self.kind.any():
            return self
        return replace(self, reason=np.where((self.kind == kind) | ~self.used, self.reason, OTHER_KIND))

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
    where there is one. `kind_planes` are their focal planes; depth 0 of each kind is midway between its own.
    `named` are the terms of the field model, `validation` the errors of left-out particles; None in old files.
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
    named: NamedTerms | None = None
    validation: Validation | None = None
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    kinds: tuple[PsfModel, ...] = ()
    kind_planes: tuple[FocalPlanes, ...] = ()

    @property
    def models(self) -> tuple[PsfModel, ...]:
        """The PSF model of each kind, one at least."""
        return self.kinds or (self.model,)

    def height_um(self) -> FloatArray:
        """Height (N,) of the particles in the sample: the focus at which they would be seen in the middle of the
        field."""
        table, pixel = self.particles, self.model.pixel_size_um
        height = table.z_um.copy()
        for kind, model in enumerate(self.models):
            mine = table.kind == kind
            if model.field is not None:
                height[mine] -= model.field.surface_at(table.x_um[mine] / pixel, table.y_um[mine] / pixel)
        return height
