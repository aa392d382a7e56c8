"""Objects much larger than particles (bubbles, dust, saturated spots), which no Gaussian describes.

Where a Gaussian fits such an object badly, taking it out of the image leaves slopes on which no particle can be
seen for several widths around. So the pixels that the object itself covers are filled in from their border
instead, the rest of the image stays as it is, and is searched.
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

# A fitted object of a mean width of so many times that of the widest filter is no particle.
WIDE_OBJECT = 1.2
# What stands out of the noise less than so many times is taken out as a Gaussian, like a blurred particle: what is
# left of it hides little.
STRONG = 50.0
# A Gaussian fits badly where it leaves so many times the noise (rms over its image).
BAD_FIT = 3.0
# How far the image of a fitted Gaussian reaches, in widths, and how far away it still disturbs.
REACH_SIGMAS = 3.5
# The object covers what is above this part of its amplitude, the blurred edge around that as far as it is above so
# many times the noise and not farther than so many pixels, and a seam.
COVERED_PART = 0.15
EDGE_SIGMAS = 4.0
EDGE_PX = 16
SEAM_PX = 2
FILL_ROUNDS = 200
RING_FROM_SIGMAS = 2.5
EIGHT = np.ones((3, 3), np.bool_)


def mean_widths(parameters: FloatArray) -> FloatArray:
    """Geometric means (N,) of the widths along x and y, px, of fits (N, 6)."""
    widths: FloatArray = np.exp(0.5 * (parameters[:, LN_SX] + parameters[:, LN_SY]))
    return widths


def badly_fitted(
    residual: Float32Array, parameters: FloatArray, fitted: BoolArray, wide_px: float, noise: float
) -> IntArray:
    """Which of the `fitted` (N,) are strong, wider than `wide_px` and no Gaussians.

    That is seen in what they left in `residual`.
    What lies partly in the image, with a centre beyond its edge, is not taken out of it and so left as a whole.
    """
    strong = parameters[:, AMPLITUDE] > STRONG * noise
    wide = np.flatnonzero(fitted & strong & (mean_widths(parameters) > wide_px))
    bad = [index for index in wide if _left(residual, parameters[index]) > BAD_FIT * noise]
    return np.array(bad, np.intp)


def _left(residual: Float32Array, p: FloatArray) -> float:
    """Standard deviation of what a fit has left within two widths of its centre."""
    window = _window(residual.shape, p, 2.0)
    return float(residual[window].std()) if residual[window].size else 0.0


def _window(shape: tuple[int, ...], p: FloatArray, sigmas: float) -> tuple[slice, slice]:
    reach_x, reach_y = sigmas * math.exp(p[LN_SX]) + 1, sigmas * math.exp(p[LN_SY]) + 1
    rows = slice(max(0, int(p[Y] - reach_y)), min(shape[0], int(p[Y] + reach_y) + 2))
    return rows, slice(max(0, int(p[X] - reach_x)), min(shape[1], int(p[X] + reach_x) + 2))


def disturbed(parameters: FloatArray, objects: IntArray) -> BoolArray:
    """Which fits (N, 6) lie so near to one of the objects that they may have been fitted to its misfit."""
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
