"""Directional Gaussian random fields: the background from particles far out of focus.

A field is white noise on a lattice, half a correlation length apart along each axis, under a Gaussian kernel.
Its variance is 1 at every pixel, its correlation exp(-d^2 / (2 l^2)) to within rounding.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from calibration.synthesis.inputs import BackgroundModel

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

NODES_A_LENGTH = 2.0
PEAK_SDS = 3.0
_KERNEL_SD = NODES_A_LENGTH / math.sqrt(2)
_TAPS = 12


def add_background(canvas: Float32Array, model: BackgroundModel, rng: np.random.Generator) -> None:
    """Add a field along x and one along y, of the same random parameters, to a contrast image (H, W)."""
    along, across = rng.uniform(*model.along_px), rng.uniform(*model.across_px)
    threshold = rng.uniform(*model.threshold)
    amplitude = rng.uniform(0.0, model.amplitude)
    for length_y, length_x in ((across, along), (along, across)):
        field = gaussian_field(rng, canvas.shape, length_y, length_x)
        _add_above(canvas, field, np.float32(threshold), np.float32(amplitude / (PEAK_SDS - threshold)))


def gaussian_field(
    rng: np.random.Generator, shape: tuple[int, ...], length_y_px: float, length_x_px: float
) -> Float32Array:
    """A Gaussian random field (H, W) of variance 1 with these correlation lengths."""
    taps = [_taps(rng, size, length) for size, length in zip(shape, (length_y_px, length_x_px), strict=True)]
    lattice = tuple(int(start[-1]) + _TAPS for start, _ in taps)
    white = rng.standard_normal(lattice, np.float32)
    field = np.empty(shape, np.float32)
    _interpolate(white, *taps[0], *taps[1], field)
    return field


def _taps(
    rng: np.random.Generator, size: int, length_px: float
) -> tuple[npt.NDArray[np.int64], Float32Array]:
    """First lattice node (size,) and weights (size, taps) of each pixel along one axis."""
    place = np.arange(size) * (NODES_A_LENGTH / length_px) + rng.random() + _TAPS // 2 - 1
    first = np.floor(place).astype(np.int64) - (_TAPS // 2 - 1)
    distance = place[:, None] - first[:, None] - np.arange(_TAPS)
    weights = np.exp(-(distance**2) / (2 * _KERNEL_SD**2))
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    return first, weights.astype(np.float32)


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _interpolate(
    white: Float32Array,
    first_y: IntArray,
    weights_y: Float32Array,
    first_x: IntArray,
    weights_x: Float32Array,
    out: Float32Array,
) -> None:
    height, width = out.shape
    lines = np.empty((white.shape[0], width), np.float32)
    for row in range(white.shape[0]):
        for column in range(width):
            start = first_x[column]
            total = np.float32(0.0)
            for k in range(_TAPS):
                total += weights_x[column, k] * white[row, start + k]
            lines[row, column] = total
    for row in range(height):
        target = out[row]
        target[:] = np.float32(0.0)
        for k in range(_TAPS):
            weight = weights_y[row, k]
            line = lines[first_y[row] + k]
            for column in range(width):
                target[column] += weight * line[column]


@njit(cache=True, nogil=True)
def _add_above(canvas: Float32Array, field: Float32Array, threshold: np.float32, scale: np.float32) -> None:
    for row in range(canvas.shape[0]):
        for column in range(canvas.shape[1]):
            canvas[row, column] += max(field[row, column] - threshold, np.float32(0.0)) * scale
