"""Objects much larger than particles (bubbles, dust, saturated spots), which no Gaussian describes.

Subtracting a badly fitting Gaussian would leave slopes on which no particle can be detected for several widths
around. Instead, the pixels that the object covers are filled in from their border; the rest of the image is
unchanged and is searched for particles.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy import ndimage

from engines.classical.gaussian import AMPLITUDE, LN_SX, LN_SY, X, Y

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]

WIDE_OBJECT = 1.2
"""Mean width over that of the widest filter above which a fitted object is no particle."""
STRONG = 50.0
"""Amplitude over the noise below which an object is subtracted as a Gaussian, like a blurred particle: its
residual hides little."""
BAD_FIT = 3.0
"""Rms of the residual over the noise above which a Gaussian fits badly."""
REACH_SIGMAS = 3.5
"""Widths over which the image of a fitted Gaussian reaches, and one more over which it disturbs other fits."""
COVERED_PART = 0.15
"""Part of its amplitude above which the object covers a pixel."""
EDGE_SIGMAS = 4.0
"""Around this, the blurred edge is covered as far as it is so many times above the noise ..."""
EDGE_PX = 16
"""... and not farther than so many pixels,"""
SEAM_PX = 2
"""and a seam of so many pixels."""
FILL_ROUNDS = 200
"""Rounds of smoothing the filled-in pixels from their border; a slope needs as many as the object is wide, and
what remains is smooth in any case."""
RING_FROM_SIGMAS = 2.5
"""Widths beyond which the median around an object is its background."""
EIGHT = np.ones((3, 3), np.bool_)


def mean_widths(parameters: FloatArray) -> FloatArray:
    """Geometric means (N,) of the widths along x and y, px, of fits (N, 6)."""
    widths: FloatArray = np.exp(0.5 * (parameters[:, LN_SX] + parameters[:, LN_SY]))
    return widths


def badly_fitted(
    residual: Float32Array, parameters: FloatArray, fitted: BoolArray, wide_px: float, noise: float
) -> IntArray:
    """Which of the `fitted` (N,) are strong, wider than `wide_px` and no Gaussians.

    This shows in their residual. Objects with a centre beyond the edge have not been subtracted.
    """
    strong = parameters[:, AMPLITUDE] > STRONG * noise
    wide = np.flatnonzero(fitted & strong & (mean_widths(parameters) > wide_px))
    bad = [index for index in wide if _left(residual, parameters[index]) > BAD_FIT * noise]
    return np.array(bad, np.intp)


def _left(residual: Float32Array, p: FloatArray) -> float:
    """Standard deviation of a fit's residual within two widths of its centre."""
    window = _window(residual.shape, p, 2.0)
    return float(residual[window].std()) if residual[window].size else 0.0


def _window(shape: tuple[int, ...], p: FloatArray, sigmas: float) -> tuple[slice, slice]:
    reach_x, reach_y = sigmas * math.exp(p[LN_SX]) + 1, sigmas * math.exp(p[LN_SY]) + 1
    rows = slice(max(0, int(p[Y] - reach_y)), min(shape[0], int(p[Y] + reach_y) + 2))
    return rows, slice(max(0, int(p[X] - reach_x)), min(shape[1], int(p[X] + reach_x) + 2))


def disturbed(parameters: FloatArray, objects: IntArray) -> BoolArray:
    """Which fits (N, 6) lie so near to one of the objects that they may have been fitted to its residual."""
    near = np.zeros(parameters.shape[0], np.bool_)
    for p in parameters[objects]:
        dx = (parameters[:, X] - p[X]) / math.exp(p[LN_SX])
        dy = (parameters[:, Y] - p[Y]) / math.exp(p[LN_SY])
        near |= np.maximum(np.abs(dx), np.abs(dy)) < REACH_SIGMAS + 1
    return near


def fill_in(image: Float32Array, objects: FloatArray, noise: float) -> int:
    """Fill in, in place, what the objects (N, 6) cover of `image` (bright on dark); returns how many pixels."""
    covered = np.zeros(image.shape, np.bool_)
    for p in objects:
        window = _window(image.shape, p, REACH_SIGMAS)
        covered[window] |= _covered(image[window], p, window, noise)
    if covered.any():
        rows, columns = np.nonzero(covered)
        _smooth_over(image, covered, rows, columns)
    return int(covered.sum())


def _covered(part: Float32Array, p: FloatArray, window: tuple[slice, slice], noise: float) -> BoolArray:
    """Pixels of `part`, the window of the image around an object, that the object covers."""
    y, x = np.ogrid[window]
    dx, dy = (x - p[X]) / math.exp(p[LN_SX]), (y - p[Y]) / math.exp(p[LN_SY])
    distance2 = dx * dx + dy * dy
    ring = part[distance2 > RING_FROM_SIGMAS**2]
    level = part - np.median(ring if ring.size else part)
    parts, _ = ndimage.label(level > COVERED_PART * p[AMPLITUDE], EIGHT)
    own = np.unique(parts[distance2 < 1])
    core = np.isin(parts, own[own > 0])
    edge = ndimage.binary_dilation(core, EIGHT, EDGE_PX, mask=level > EDGE_SIGMAS * noise)
    covered: BoolArray = ndimage.binary_dilation(edge | core, EIGHT, SEAM_PX)
    return covered


@njit(cache=True, nogil=True)
def _smooth_over(image: Float32Array, covered: BoolArray, rows: IntArray, columns: IntArray) -> None:
    """Give the covered pixels the mean of their neighbours, again and again, from the mean of the border."""
    height, width = image.shape
    total = 0.0
    count = 0
    for n in range(rows.size):
        row, column = rows[n], columns[n]
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= r < height and 0 <= c < width and not covered[r, c]:
                total += image[r, c]
                count += 1
    for n in range(rows.size):
        row, column = rows[n], columns[n]
        image[row, column] = total / max(1, count)
    for _ in range(FILL_ROUNDS):
        for n in range(rows.size):
            row, column = rows[n], columns[n]
            above = image[max(0, row - 1), column] + image[min(height - 1, row + 1), column]
            beside = image[row, max(0, column - 1)] + image[row, min(width - 1, column + 1)]
            image[row, column] = 0.25 * (above + beside)
