"""What the field model says in numbers that have names: focal surface, walk, astigmatism over the field, modes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.errors import CalibrationError
from calibration.field.estimate import FieldFit
from calibration.field.surface_choice import Surface
from calibration.focal_planes import find_focal_planes
from calibration.psf_model import PsfModel

FloatArray = npt.NDArray[np.float64]

PLACES = 3
"""Places along each side of the field at which the astigmatism is measured."""
ROW = 4
"""Numbers of each of them."""
PAIRS = ("tilt_um", "tilt_sigma_um", "curve_um", "curve_sigma_um", "stage_um")
FLAGS = ("surface_applied", "walk_applied", "stage_removed")
COUNTS = ("modes", "degree", "brightness_degree")


@dataclass(frozen=True, slots=True)
class NamedTerms:
    """The terms of a field model by name, with standard errors where they were fitted.

    Over the field: `tilt_um` (along x, along y) is the focal surface's change in height from edge to edge,
    `curve_um` its height at the middle of the edge over that in the middle of the field, from the curvature along x
    and along y. `walk_percent` is how far, in percent of its depth, an image at the end of the longer side moves
    outwards. `surface_unseen_um` is what the focal surface may have beside, which the stated errors of depth hold.
    `stage_um` is how far the stage moved sideways during the scan, NaN where that cannot be told from the
    optics. `astigmatism` has a row a place: x, y (um from the middle), distance of the focal lines (um), their
    angle (deg). `modes`, `degree`, `brightness_degree` and `scores` say what was chosen
    (`calibration.field.choose`).
    """

    tilt_um: tuple[float, float]
    tilt_sigma_um: tuple[float, float]
    curve_um: tuple[float, float]
    curve_sigma_um: tuple[float, float]
    surface_applied: bool
    surface_scatter_um: float
    walk_percent: float
    walk_sigma_percent: float
    walk_applied: bool
    stage_um: tuple[float, float]
    stage_removed: bool
    modes: int
    degree: int
    brightness_degree: int
    scores: tuple[tuple[str, float], ...]
    astigmatism: tuple[tuple[float, float, float, float], ...]
    surface_unseen_um: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """All fields, for JSON; what is not known is None, as JSON has no NaN."""
        found: dict[str, Any] = _with_none(asdict(self))
        return found

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> NamedTerms:
        """The inverse of `to_dict`, also as JSON gives it. Raises `TypeError`, `ValueError`, `LookupError`."""
        values = dict(found)
        for item in fields(cls):
            name, value = item.name, found.get(item.name, 0.0 if item.name == "surface_unseen_um" else "")
            if name in PAIRS:
                values[name] = (_number(value[0]), _number(value[1]))
            elif name in FLAGS:
                values[name] = _flag(value)
            elif name in COUNTS:
                values[name] = int(value)
            elif name not in ("scores", "astigmatism"):
                values[name] = _number(value)
        values["scores"] = tuple((str(name), float(score)) for name, score in found["scores"])
        rows = [tuple(float(value) for value in row) for row in found["astigmatism"]]
        scores = [score for _, score in values["scores"]]
        if not scores or not (np.isfinite(scores).all() and min(scores) >= 0):
            raise ValueError("the scores of a field model must be numbers that are not negative")
        if any(len(row) != ROW for row in rows) or min(values[name] for name in COUNTS) < 0:
            raise ValueError("the named terms of a field model have another shape")
        return cls(**values | {"astigmatism": tuple(rows)})


def _with_none(value: Any) -> Any:
    """The same with None for NaN."""
    if isinstance(value, dict):
        return {name: _with_none(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_none(inner) for inner in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def _number(value: Any) -> float:
    number = float("nan") if value is None else float(value)
    if np.isinf(number):
        raise ValueError("a named term of a field model is infinite")
    return number


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def name_terms(fit: FieldFit, surface: Surface | None, model: PsfModel) -> NamedTerms:
    """The named terms of a fit, and of the focal surface where the particles lie on one."""
    height, width = fit.shape
    far = np.array([width, height]) / max(fit.shape)
    tilt, tilt_sigma, curve, curve_sigma = np.full((4, 2), np.nan)
    if surface is not None:
        sigma = np.sqrt(np.diagonal(surface.covariance))
        tilt, tilt_sigma = 2 * far * surface.surface_um[1:3], 2 * far * sigma[1:3]
        curve, curve_sigma = far**2 * surface.surface_um[[3, 5]], far**2 * sigma[[3, 5]]
    walk, per_um, sigma_per_um = fit.walk, np.nan, np.nan
    if walk is not None:
        per_um, sigma_per_um = np.trace(walk.per_um) / 2, np.hypot(*np.diagonal(walk.sigma_per_um)) / 2
    edge_percent = 100 * max(fit.shape) / 2 * model.pixel_size_um
    stage = np.full(2, np.nan)
    if fit.stage_px.any():
        stage = np.ptp(fit.stage_px, axis=0) * model.pixel_size_um
    return NamedTerms(
        tilt_um=_pair(tilt),
        tilt_sigma_um=_pair(tilt_sigma),
        curve_um=_pair(curve),
        curve_sigma_um=_pair(curve_sigma),
        surface_applied=model.field is not None and bool(model.field.surface_um.any()),
        surface_scatter_um=float("nan") if surface is None else surface.scatter_um,
        walk_percent=float(edge_percent * per_um),
        walk_sigma_percent=float(edge_percent * sigma_per_um),
        walk_applied=model.field is not None and bool(model.field.walk_per_um.any()),
        stage_um=_pair(stage),
        stage_removed=bool(fit.stage_px.any()),
        modes=0 if model.field is None else len(model.field.modes),
        degree=fit.choice.design.degree,
        brightness_degree=fit.choice.design.brightness_degree,
        scores=fit.choice.scores,
        astigmatism=_astigmatism(model),
        surface_unseen_um=0.0 if surface is None else float(np.sqrt(surface.unseen_um2)),
    )


def _pair(values: FloatArray) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _astigmatism(model: PsfModel) -> tuple[tuple[float, float, float, float], ...]:
    """Distance and angle of the focal lines over the field; empty where the images have no two focal lines."""
    if model.field is None or not len(model.field.modes):
        return ()
    height, width = model.field.shape
    depths = np.arange(model.z_min_um, model.z_max_um, model.z_step_um)
    rows = []
    for y_px in (np.arange(PLACES) + 0.5) * height / PLACES - 0.5:
        for x_px in (np.arange(PLACES) + 0.5) * width / PLACES - 0.5:
            try:
                planes = find_focal_planes(model.at(x_px, y_px).images(depths).astype(np.float64), depths)
            except CalibrationError:
                continue
            if planes.astigmatic:
                off = np.array([x_px - (width - 1) / 2, y_px - (height - 1) / 2]) * model.pixel_size_um
                rows.append((*_pair(off), planes.yz_um - planes.xz_um, planes.rotation_deg))
    return tuple(rows)
