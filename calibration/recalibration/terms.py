"""The named terms of a PSF model: what they are now, and the model with others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from calibration.psf_model import PsfModel
from calibration.recalibration.focal_lines import widths_of, with_blur, with_lines_moved
from engines.refine.field import SURFACE_DEGREE, FieldModel, terms_of

FloatArray = npt.NDArray[np.float64]

ASTIGMATIC_PART = 0.05
"""Distance of the focal lines over the depth range below which a lens is not astigmatic enough to move them."""


@dataclass(frozen=True, slots=True)
class Term:
    """One named term, before and after.

    `chi2_before` and `chi2_after` are those of `particles` that the new value was not fitted to, in units of their
    scatter about the new model. `changed`: the new model has the new value; otherwise `why` says why not.
    """

    name: str
    unit: str
    before: tuple[float, ...]
    after: tuple[float, ...]
    sd: tuple[float, ...]
    chi2_before: float
    chi2_after: float
    particles: int
    changed: bool
    why: str = ""

    def to_dict(self) -> dict[str, object]:
        """For JSON; numbers that are not finite become None."""

        def plain(value: float) -> float | None:
            return float(value) if np.isfinite(value) else None

        return {
            "name": self.name,
            "unit": self.unit,
            "before": [plain(value) for value in self.before],
            "after": [plain(value) for value in self.after],
            "standard_error": [plain(value) for value in self.sd],
            "chi_square_before": plain(self.chi2_before),
            "chi_square_after": plain(self.chi2_after),
            "particles": self.particles,
        }


def focal_lines(model: PsfModel) -> tuple[float, float]:
    """Depths, um, at which the image is narrowest along x and along y."""
    z_um = model.z_first_um + model.z_step_um * np.arange(len(model.coefficients))
    inside = (z_um >= model.z_min_um) & (z_um <= model.z_max_um)
    x, y = (_lowest(z_um[inside], width[inside]) for width in widths_of(model))
    return x, y


def _lowest(z_um: npt.NDArray[np.floating], width: npt.NDArray[np.floating]) -> float:
    """Where a curve is lowest: the vertex of the parabola through the lowest point and its neighbours."""
    at = int(width.argmin())
    if not 0 < at < width.size - 1:
        return float(z_um[at])
    low, middle, high = width[at - 1 : at + 2]
    return float(z_um[at] + 0.5 * (z_um[1] - z_um[0]) * (low - high) / max(low - 2 * middle + high, 1e-12))


def is_astigmatic(model: PsfModel) -> bool:
    """Whether the two focal lines are far enough apart to tell them."""
    x, y = focal_lines(model)
    return abs(x - y) > ASTIGMATIC_PART * (model.z_max_um - model.z_min_um)


def with_shape(model: PsfModel, change_um: float, blur_px2: float) -> PsfModel:
    """The model with its focal lines `change_um` further apart, around the same middle, and blurred."""
    x, y = focal_lines(model)
    half = change_um / 2 if x > y else -change_um / 2
    moved = with_lines_moved(model, half, -half) if change_um else model
    return with_blur(moved, blur_px2) if blur_px2 else moved


def with_depths(model: PsfModel, scale: float, offset_um: float) -> PsfModel:
    """The model with all depths z as scale * z + offset: its focal surface, walk and misfit go with them."""
    field, misfit = model.field, model.misfit
    if field is not None:
        field = replace(field, surface_um=field.surface_um * scale, walk_per_um=field.walk_per_um / scale)
    if misfit is not None:
        variance = misfit.variance * np.array([1.0, 1.0, scale**2])
        misfit = replace(misfit, z_um=misfit.z_um * scale + offset_um, variance=variance)
    return replace(
        model,
        z_first_um=model.z_first_um * scale + offset_um,
        z_step_um=model.z_step_um * scale,
        z_min_um=model.z_min_um * scale + offset_um,
        z_max_um=model.z_max_um * scale + offset_um,
        field=field,
        misfit=misfit,
    )


def field_of(model: PsfModel, shape: tuple[int, int]) -> FieldModel:
    """The field model, or one for images of `shape` in which nothing varies."""
    if model.field is not None:
        return model.field
    modes = np.zeros((0, *model.coefficients.shape), np.float32)
    return FieldModel(
        shape, np.zeros(terms_of(SURFACE_DEGREE)), np.zeros((2, 2)), modes, np.zeros((0, terms_of(0))), 0
    )
