"""How well particles that the model has not seen are measured: each tenth is left out in turn.

Their images are fitted, one by one, with the PSF model of the others, as in a live run. What the errors hold beyond
the noise is the misfit of the model: it goes into the standard errors of every detection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from calibration.field.choose import folds_of
from calibration.field.estimate import FieldFit, spline_of_place
from calibration.psf_model import PsfModel
from engines.refine.arguments import Float32Array
from engines.refine.fitting import LEAST_SEARCH_UM
from engines.refine.lone import fit_lone
from engines.refine.psf import FitModel

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FOLDS = 10
"""Groups of particles that are left out in turn; with fewer than ten, each particle by itself."""
MOST_IMAGES = 6000
"""Images that are fitted at most, 1 to 2 ms each; with more, every n-th plane of each particle."""
RIGHT_PART = 0.05
"""Part of the depth range by which a depth may be off before it counts as the wrong side of focus."""


LARGEST = 1e9
"""um (a kilometre), and chi-square: more is no measurement, but a damaged file; squares stay far from overflow."""


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """One row an image of a left-out particle, (M,).

    `particle` is its row in the calibration's table, `x_um`, `y_um` its place, `z_um` its local depth. `error_*_um`
    is what was measured less that; NaN where the fit failed. `sigma_*_um` are the standard errors from noise alone,
    `chi_square` the reduced one.
    """

    particle: npt.NDArray[np.int64]
    x_um: FloatArray
    y_um: FloatArray
    z_um: FloatArray
    error_x_um: FloatArray
    error_y_um: FloatArray
    error_z_um: FloatArray
    sigma_x_um: FloatArray
    sigma_y_um: FloatArray
    sigma_z_um: FloatArray
    chi_square: FloatArray

    def __post_init__(self) -> None:
        columns = {item.name: getattr(self, item.name) for item in fields(self)}
        if any(column.shape != (self.particle.size,) for column in columns.values()):
            raise ValueError("the columns of a cross-validation are not of one length")
        if self.particle.dtype.kind not in "iu":
            raise ValueError("particles of a cross-validation have no whole numbers")
        for name, column in columns.items():
            known = np.isfinite(column)
            if name.startswith(("error", "sigma", "chi")):
                known |= np.isnan(column)
            if name.startswith("sigma"):
                known &= ~(column <= 0)
            if not (known & ~(np.abs(column) > LARGEST)).all():
                raise ValueError(f"{name} of a cross-validation has values that cannot be")

    def __len__(self) -> int:
        return int(self.particle.size)

    @classmethod
    def together(cls, parts: Sequence[Validation]) -> Validation:
        """Those of several kinds of particles as one."""
        return cls(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls)))

    def where(self, chosen: BoolArray) -> Validation:
        """The rows that `chosen` (M,) marks."""
        return Validation(*(getattr(self, item.name)[chosen] for item in fields(self)))

    def errors(self) -> FloatArray:
        """Errors (M, 3), um."""
        return np.stack([self.error_x_um, self.error_y_um, self.error_z_um], axis=1)

    def sigmas(self) -> FloatArray:
        """Standard errors from noise (M, 3), um."""
        return np.stack([self.sigma_x_um, self.sigma_y_um, self.sigma_z_um], axis=1)

    def right_side(self, depth_um: float) -> BoolArray:
        """Which (M,) were measured on the right side of focus, `depth_um` being the depth range."""
        right: BoolArray = np.abs(self.error_z_um) <= RIGHT_PART * depth_um
        return right


def cross_validate(
    fit: FieldFit,
    members: npt.NDArray[np.intp],
    used: BoolArray,
    noise: tuple[float, float],
    model: PsfModel,
    on_progress: Callable[[float], None] = lambda _part: None,
) -> Validation:
    """Fit the images of particles (N,), of those that are `used` (N,), each with the model of the others.

    `members` (N,) are their rows in the calibration's table, `noise` the variance of the contrast of these images,
    (read, shot x relative brightness).
    """
    traces = fit.traces
    count, planes = traces.depth_um.shape
    every = max(1, -(-int(traces.seen.sum()) // MOST_IMAGES))
    folds = folds_of(traces.u, traces.v, min(FOLDS, count))
    rows: list[tuple[float, ...]] = []
    for own in range(int(folds.max()) + 1):
        mine = np.flatnonzero(folds == own)
        splines = fit.left_out_splines(mine)
        for i in mine[used[mine]]:
            x_um, y_um = fit.place_um(int(i), model.pixel_size_um)
            particle = _of_place(fit, splines, int(i), model)
            for k in range(int(i) % every, planes, every):
                if traces.seen[i, k]:
                    depth = float(traces.depth_um[i, k])
                    away = np.array([traces.dx_px[i, k], traces.dy_px[i, k]])
                    measured = _measure(traces.images[i, k], particle, away, depth, noise)
                    rows.append((int(members[i]), x_um, y_um, depth, *measured))
        on_progress((own + 1) / (int(folds.max()) + 1))
    table = np.array(rows, np.float64).reshape(-1, len(fields(Validation)))
    return Validation(table[:, 0].astype(np.int64), *table[:, 1:].T.copy())


def _of_place(fit: FieldFit, splines: FloatArray, index: int, model: PsfModel) -> FitModel:
    """The model of a particle's place (and brightness) for the fit, made of the others."""
    own = replace(model, coefficients=spline_of_place(fit, splines, index), field=None, misfit=None)
    return own.for_fit(brightness_sd=float(np.std(fit.traces.brightness)))


def _measure(
    image: Float32Array, model: FitModel, away_px: FloatArray, depth_um: float, noise: tuple[float, float]
) -> tuple[float, ...]:
    """Errors (x, y, z), standard errors (x, y, z) in um, and reduced chi-square of a fit from the true place."""
    middle = image.shape[0] // 2
    true = np.array([middle + away_px[0], middle + away_px[1], depth_um])
    found = fit_lone(np.ascontiguousarray(image), model, true, LEAST_SEARCH_UM, noise)
    if found is None:
        return (np.nan,) * 7
    scale = np.array([model.pixel_size_um, model.pixel_size_um, 1.0])
    error = (found.theta[:3] - true) * scale
    return (*error, *(found.sigma[:3] * scale), found.chi_square)
