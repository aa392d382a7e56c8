"""Moves the two focal lines of a PSF model apart, without its optics.

In geometric optics the image of an astigmatic lens has the width w_x(z) along columns and w_y(z) along rows, each
with its own focal line. Where the line of x moves by d_x, the image at z has the width w_x(z - d_x):

    f'(x, y; z) = r_x r_y f(r_x x, r_y y; z),    r_x = w_x(z) / w_x(z - d_x)                 (1)

with the light kept. It is exact for a Gaussian beam and for rays. On computed bright-field and fluorescence images
(lines 150 um apart) it removes 65 to 80 % of the squared change of the image that 5 % of that distance make, and
the change that it needs for that is within 15 % of the true one. w is the root mean square width of the squared
contrast, which rings and negative parts do not spoil.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from threadpoolctl import threadpool_limits

from calibration.psf_model import PsfModel

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

SMOOTHED_NODES = 2.0
"""Standard deviation, in nodes, over which widths are averaged: they change slowly, their noise does not. Half or
twice as much moves a fitted change of the focal lines by less than its standard error."""
MOST_STRETCH = 1.5
"""Largest r, or least 1 / r: beyond, the model's image is not one of this lens any more."""
CURVATURE = np.array([1.0, -2.0, 1.0])
SMOOTHING = np.array([1.0, 4.0, 1.0]) / 6.0
"""Cubic B-spline at the nodes -1, 0, 1: from coefficients to values."""


def widths_of(model: PsfModel) -> tuple[FloatArray, FloatArray]:
    """Root mean square widths (J,) of the squared contrast along columns and rows at each node, px."""
    images = _values(model.coefficients, axes=(0, 1, 2)).astype(np.float64) ** 2
    middle = images.shape[1] // 2
    squared = (np.arange(images.shape[1]) - middle) ** 2.0
    power = np.maximum(images.sum(axis=(1, 2)), 1e-300)
    found = []
    for axis in (1, 2):
        width = np.sqrt((images.sum(axis=axis) * squared).sum(axis=1) / power)
        found.append(ndimage.gaussian_filter1d(np.maximum(width, 0.5), SMOOTHED_NODES, mode="nearest"))
    return found[0], found[1]


def with_lines_moved(model: PsfModel, dx_um: float, dy_um: float) -> PsfModel:
    """The model with the focal line of x moved by `dx_um` along z and that of y by `dy_um`, by (1).

    The modes of its field model change alike.
    """
    z_um = model.z_first_um + model.z_step_um * np.arange(len(model.coefficients))
    wide_x, wide_y = widths_of(model)
    stretch = [
        np.clip(width / np.interp(z_um - moved, z_um, width), 1 / MOST_STRETCH, MOST_STRETCH)
        for width, moved in ((wide_x, dx_um), (wide_y, dy_um))
    ]
    field = model.field
    if field is not None:
        modes = [_stretched(mode, *stretch) for mode in field.modes]
        field = replace(field, modes=np.stack(modes) if modes else field.modes)
    return replace(model, coefficients=_stretched(model.coefficients, *stretch), field=field)


def with_blur(model: PsfModel, blur_px2: float) -> PsfModel:
    """The model of larger particles: f + blur (f_xx + f_yy), to first order a blur of the variance 2 blur, px^2."""
    field = model.field
    if field is not None and len(field.modes):
        field = replace(field, modes=np.stack([_blurred(mode, blur_px2) for mode in field.modes]))
    return replace(model, coefficients=_blurred(model.coefficients, blur_px2), field=field)


def _blurred(coefficients: Float32Array, blur_px2: float) -> Float32Array:
    out = coefficients.astype(np.float64)
    for axis in (1, 2):
        out += blur_px2 * ndimage.convolve1d(
            coefficients.astype(np.float64), CURVATURE, axis, mode="constant"
        )
    return out.astype(np.float32)


def _stretched(coefficients: Float32Array, by_x: FloatArray, by_y: FloatArray) -> Float32Array:
    """Coefficients (J, P, P) of the images of (1); what lies beyond the model is 0."""
    planes = _values(coefficients, axes=(0,)).astype(np.float64)  # splines over the plane at each node
    middle = planes.shape[1] // 2
    offset = np.arange(planes.shape[1]) - middle
    out = np.empty_like(planes)
    with threadpool_limits(1):  # the matrices are small; threads would only wait for one another
        for node, plane in enumerate(planes):
            rows = _weights(by_y[node] * offset + middle, planes.shape[1])
            columns = _weights(by_x[node] * offset + middle, planes.shape[1])
            out[node] = by_x[node] * by_y[node] * (rows @ plane @ columns.T)
    return ndimage.spline_filter(out, order=3, mode="mirror").astype(np.float32)


def _values(coefficients: Float32Array, axes: tuple[int, ...]) -> FloatArray:
    out: FloatArray = coefficients.astype(np.float64)
    for axis in axes:
        out = ndimage.convolve1d(out, SMOOTHING, axis=axis, mode="mirror")
    return out


def _weights(places: FloatArray, size: int) -> FloatArray:
    """Weights (N, size) of the coefficients in the spline's values at places (N,); those beyond the ends are 0."""
    distance = np.abs(places[:, None] - np.arange(size))
    near = 2 / 3 - distance**2 * (1 - distance / 2)
    far = np.clip(2 - distance, 0.0, None) ** 3 / 6
    inside = (places >= 0) & (places <= size - 1)
    weights: FloatArray = np.where(distance < 1, near, far) * inside[:, None]
    return weights
