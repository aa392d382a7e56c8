"""PSF model: how a particle's image looks over depth, as a cubic B-spline in x, y and z.

It is smooth and differentiable; Li et al. (2018), Nature Methods 15, 367, use the same for single molecules.
Contrast is a fraction of the background's brightness and positive at the particle, whatever its polarity.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy import ndimage

from engines.refine.field import FieldModel
from engines.refine.misfit import Misfit
from engines.refine.psf import FitModel
from engines.refine.quantity import Quantity
from engines.refine.spline import BY_X, BY_Y, BY_Z, VALUE, Window, evaluate_window

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

END_NODES = 4

__all__ = ["BY_X", "BY_Y", "BY_Z", "VALUE", "PsfModel"]


@dataclass(frozen=True, slots=True, eq=False)
class PsfModel:
    """Contrast of a particle of brightness 1 at each depth.

    `coefficients` (J, P, P) are of the B-spline on nodes `z_first_um + j * z_step_um` and whole pixels, P odd;
    the particle's centre is the middle pixel. It holds from `z_min_um` to `z_max_um`, at least one node away
    from the first and the last; z is the particle's height minus the focus position, 0 midway between the
    focal lines. `field` is what changes over the field of view, None where one image stands for all of it;
    `misfit` how far particles that the model has not seen are measured wrong beyond noise, None where not known;
    `quantity` what stands in the place of depth, None where that is the depth.
    """

    coefficients: Float32Array
    z_first_um: float
    z_step_um: float
    z_min_um: float
    z_max_um: float
    pixel_size_um: float
    polarity: Literal["dark", "bright"]
    field: FieldModel | None = None
    misfit: Misfit | None = None
    quantity: Quantity | None = None

    @classmethod
    def of_fit(cls, fit: FitModel) -> PsfModel:
        """The PSF model that a fit uses, as a calibration has it: the inverse of `for_fit`."""
        return cls(
            fit.coefficients,
            fit.z_first_um,
            fit.z_step_um,
            fit.z_min_um,
            fit.z_max_um,
            fit.pixel_size_um,
            fit.polarity,
            fit.field,
            fit.misfit,
            fit.quantity,
        )

    @classmethod
    def from_images(
        cls,
        images: npt.NDArray[np.floating],
        z_first_um: float,
        z_step_um: float,
        *,
        pixel_size_um: float,
        polarity: Literal["dark", "bright"],
        z_range_um: tuple[float, float] | None = None,
    ) -> PsfModel:
        """The model through images (J, P, P), J at least 2, at evenly spaced depths.

        Beyond the first and the last it is continued in a straight line, as far as the spline needs it.
        """
        last_um = z_first_um + (len(images) - 1) * z_step_um
        low_um, high_um = z_range_um or (z_first_um, last_um)
        room = min(END_NODES, len(images) - 1)
        padded = np.pad(
            images.astype(np.float64), ((room, room), (0, 0), (0, 0)), "reflect", reflect_type="odd"
        )
        spline = ndimage.spline_filter(padded, order=3, mode="mirror").astype(np.float32)
        first_um = z_first_um - room * z_step_um
        return cls(spline, first_um, z_step_um, low_um, high_um, pixel_size_um, polarity)

    def for_fit(self, **noise: Any) -> FitModel:
        """The same model as the fit of the engines reads it; `noise` as for `FitModel.of`."""
        return FitModel.of(
            self.coefficients,
            self.z_first_um,
            self.z_step_um,
            (self.z_min_um, self.z_max_um),
            pixel_size_um=self.pixel_size_um,
            polarity=self.polarity,
            field=self.field,
            misfit=self.misfit,
            quantity=self.quantity,
            **noise,
        )

    @property
    def field_shape(self) -> tuple[int, int] | None:
        """(H, W) of the field of view over which the shape of the image changes; None where it does not."""
        changes = self.field is not None and len(self.field.modes) and self.field.degree
        return self.field.shape if self.field is not None and changes else None

    @property
    def half_px(self) -> int:
        """Pixels from the middle to the edge of an image."""
        return int(self.coefficients.shape[1]) // 2

    def at(self, x_px: float, y_px: float, brightness: float = 1.0) -> PsfModel:
        """The model of one place of the field, and of particles of one brightness: a model without a field."""
        if self.field is None:
            return self
        u, v = self.field.place(x_px, y_px)
        b = float(np.log(max(brightness, 1e-6)))
        return replace(
            self, coefficients=self.field.local(self.coefficients, float(u), float(v), b), field=None
        )

    def images(
        self,
        z_um: npt.ArrayLike,
        dx_px: npt.ArrayLike = 0.0,
        dy_px: npt.ArrayLike = 0.0,
        *,
        half_px: int | None = None,
    ) -> Float32Array:
        """Contrast (N, H, H) of particles at depths (N,), their centres (dx, dy) off the middle pixel.

        H is `2 * half_px + 1`; beyond the model, in depth or in the plane, the contrast is 0.
        """
        return np.ascontiguousarray(self.images_and_gradients(z_um, dx_px, dy_px, half_px=half_px)[:, VALUE])

    def images_and_gradients(
        self,
        z_um: npt.ArrayLike,
        dx_px: npt.ArrayLike = 0.0,
        dy_px: npt.ArrayLike = 0.0,
        *,
        half_px: int | None = None,
    ) -> Float32Array:
        """As `images`, (N, 4, H, H): contrast, and its derivatives by x and y (per px) and z (per um)."""
        depths, dx, dy = np.broadcast_arrays(np.atleast_1d(np.asarray(z_um, np.float64)), dx_px, dy_px)
        half = self.half_px if half_px is None else half_px
        out = np.zeros((depths.size, 4, 2 * half + 1, 2 * half + 1), np.float32)
        inside = (depths >= self.z_min_um) & (depths <= self.z_max_um)
        node = np.where(inside, (depths - self.z_first_um) / self.z_step_um, -1.0)
        _evaluate(
            self.coefficients,
            node,
            np.array(dx, np.float64),
            np.array(dy, np.float64),
            1.0 / self.z_step_um,
            out,
        )
        return out


@njit(cache=True, nogil=True)
def _evaluate(
    coefficients: Float32Array,
    node: FloatArray,
    dx: FloatArray,
    dy: FloatArray,
    per_um: float,
    out: Float32Array,
) -> None:
    """Fill `out` (N, 4, H, H): values and derivatives at the nodes (N,) and offsets (N,); negative nodes stay 0."""
    size = coefficients.shape[1]
    half = size // 2
    wide = out.shape[3]
    for n in range(node.size):
        if node[n] < 0.0:
            continue
        # pixel p of the image shows the model at p - reach - shift + half
        start_x, start_y = half - wide // 2 - dx[n], half - wide // 2 - dy[n]
        left, top = max(0, -int(np.floor(start_x))), max(0, -int(np.floor(start_y)))
        right, bottom = min(wide, size - int(np.floor(start_x))), min(wide, size - int(np.floor(start_y)))
        if left < right and top < bottom:
            window = Window(node[n], start_y + top, start_x + left, bottom - top, right - left)
            evaluate_window(coefficients, window, per_um, True, out[n, :, top:bottom, left:right])
