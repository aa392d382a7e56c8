"""From what is seen to what is there, and back: from local to sample coordinates, (1) and (2) in `field`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engines.refine.arguments import FloatArray
from engines.refine.field import FieldModel
from engines.refine.psf import FitModel
from stream.messages import Detections

Table = npt.NDArray[np.float64]
STEP_PX = 0.5
"""px over which the slope of the focal surface is taken: it is a polynomial of degree 2, so any step gives it."""
X, Y, Z = (Detections.COLUMNS.index(f"{name}_um") for name in "xyz")
SIGMAS = slice(Detections.COLUMNS.index("sigma_x_um"), Detections.COLUMNS.index("sigma_z_um") + 1)
OTHER_Z = Detections.COLUMNS.index("z_other_um") if "z_other_um" in Detections.COLUMNS else None


def to_sample(table: Table, model: FitModel | None, pixel_size_um: float, shape: tuple[int, ...]) -> Table:
    """A `table` (columns, N) of `Detections` in an image of `shape` (H, W), as it is in the sample.

    The table itself where the PSF model does not vary over the field. Standard errors follow by the derivatives of
    (1) and (2); errors of x and y are taken as independent of those of z, which they are for a symmetric image.
    """
    field = None if model is None else model.field
    if model is None or field is None or not table.shape[1]:
        return table
    out = table.copy()
    origin = model.origin_px(shape)[::-1]
    seen = np.column_stack([table[X] / pixel_size_um, table[Y] / pixel_size_um]) + origin
    there, by_seen, by_depth = _in_sample(field, seen, table[Z])
    slope = _slope(field, there)
    out[X], out[Y] = ((there - origin) * pixel_size_um).T
    out[Z] = table[Z] - _surface(field, there)
    variance = table[SIGMAS].T ** 2
    px2 = variance[:, :2] / pixel_size_um**2
    in_plane = np.einsum("nij,nj->ni", by_seen**2, px2) + by_depth**2 * variance[:, 2:]
    in_depth = np.einsum("nk,nkj->nj", slope, by_seen) ** 2 * px2
    own = (1.0 - np.einsum("nk,nk->n", slope, by_depth)) ** 2 * variance[:, 2]
    out[SIGMAS] = np.sqrt(np.column_stack([in_plane * pixel_size_um**2, own + in_depth.sum(axis=1)])).T
    if OTHER_Z is not None:
        out[OTHER_Z] = table[OTHER_Z] - _surface(field, _in_sample(field, seen, table[OTHER_Z])[0])
    return out


def seen_at(
    place: FloatArray, sigma: FloatArray, model: FitModel, shape: tuple[int, ...]
) -> tuple[FloatArray, FloatArray]:
    """Where particles at a `place` (N, 3: x px, y px, z um) in the sample are seen in an image of `shape` (H, W).

    Local coordinates (N, 3) and their standard deviations, from those `sigma` (N, 3) of the place, taken as
    independent: the inverse of `to_sample`. What is not finite is not seen anywhere (NaN).
    """
    field = model.field
    if field is None:
        return place, sigma
    origin = model.origin_px(shape)[::-1]
    out, out_sigma = np.full_like(place, np.nan), np.full_like(sigma, np.nan)
    finite = np.isfinite(place).all(axis=1) & np.isfinite(sigma).all(axis=1)
    there = place[finite, :2] + origin
    local_um = place[finite, 2] + _surface(field, there)
    out[finite, :2] = place[finite, :2] + field.walked(there, local_um)
    out[finite, 2] = local_um
    middle = (np.array(field.shape[::-1]) - 1.0) / 2.0
    by_depth = (there - middle) @ field.walk_per_um.T
    slope = _slope(field, there)
    by_place = np.eye(2) + field.walk_per_um * local_um[:, None, None] + by_depth[:, :, None] * slope[:, None]
    variance = sigma[finite] ** 2
    in_plane = np.einsum("nij,nj->ni", by_place**2, variance[:, :2]) + by_depth**2 * variance[:, 2:]
    in_depth = variance[:, 2] + np.einsum("nj,nj->n", slope**2, variance[:, :2])
    out_sigma[finite] = np.sqrt(np.column_stack([in_plane, in_depth]))
    return out, out_sigma


def _in_sample(
    field: FieldModel, seen: FloatArray, z_um: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Places (N, 2), px, of what is `seen` at places (N, 2) and local depths (N,); their derivatives.

    By the place seen (N, 2, 2) and by the local depth (N, 2), px / um.
    """
    height, width = field.shape
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    depth = np.nan_to_num(z_um)[:, None, None]
    by_seen = np.linalg.inv(np.eye(2) + field.walk_per_um * depth)
    away = np.einsum("nij,nj->ni", by_seen, seen - middle)
    by_depth = -np.einsum("nij,jk,nk->ni", by_seen, field.walk_per_um, away)
    return middle + away, np.asarray(by_seen, np.float64), by_depth


def _surface(field: FieldModel, place: FloatArray) -> FloatArray:
    """The focal surface at places (N, 2), px; beyond the calibrated field it is that at its edge."""
    height, width = field.shape
    return field.surface_at(np.clip(place[:, 0], -0.5, width - 0.5), np.clip(place[:, 1], -0.5, height - 0.5))


def _slope(field: FieldModel, place: FloatArray) -> FloatArray:
    """Derivatives (N, 2) of the focal surface by x and y, um / px."""
    parts = []
    for axis in range(2):
        step = np.zeros(2)
        step[axis] = STEP_PX
        parts.append((_surface(field, place + step) - _surface(field, place - step)) / (2 * STEP_PX))
    return np.column_stack(parts)


def with_misfit(table: Table, model: FitModel, pixel_size_um: float, shape: tuple[int, ...]) -> Table:
    """A `table` (columns, N), local, whose standard errors, those of a network, have the model's misfit added."""
    if model.misfit is None or not table.shape[1]:
        return table
    out = table.copy()
    seen = np.column_stack([table[X], table[Y]]) / pixel_size_um
    out[SIGMAS] = np.sqrt(add_misfit(table[SIGMAS].T ** 2, model, seen, table[Z], shape)).T
    return out


def add_misfit(
    variance: FloatArray, model: FitModel, seen_px: FloatArray, z_um: FloatArray, shape: tuple[int, ...]
) -> FloatArray:
    """Variances (N, 3) of x, y, z in um^2 with those that the calibration found beyond noise, if it did.

    At places `seen_px` (N, 2) in an image of `shape` (H, W) and local depths (N,).
    """
    if model.misfit is None:
        return variance
    origin = model.origin_px(shape)
    x, y = seen_px[:, 0] + origin[1], seen_px[:, 1] + origin[0]
    return variance + model.misfit.at(x, y, np.nan_to_num(z_um))
