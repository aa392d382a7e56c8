"""Drawing of objects that were seen, turned, mirrored, stretched and moved by fractions of a pixel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from calibration.synthesis.canvas import Canvas
from engines.refine.spline import weights

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Looks(NamedTuple):
    """Objects (M,) in the middle of M images (M, P, P), P odd, by the coefficients of their cubic splines.

    `outline` (M, P, P) is 1 on an object and 0 around it, `reach_px` (M,) how far that reaches, `variance` (M,)
    that of the noise left in a pixel.
    """

    coefficients: Float32Array
    outline: Float32Array
    reach_px: FloatArray
    variance: FloatArray


class Seen(NamedTuple):
    """N objects to draw: which look, where, how bright, and how: (N, 2, 2), from a place in the image, y and x px
    off the centre, to that in the look."""

    chosen: IntArray
    x_px: FloatArray
    y_px: FloatArray
    brightness: FloatArray
    back: FloatArray


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def draw_looks(canvas: Canvas, looks: Looks, seen: Seen) -> None:
    """Add objects to the canvas's contrast, and their noise to its variance; parts beyond its edge are left out."""
    total, _, variance = canvas
    coefficients, outline, reach_px, noise = looks
    chosen, x_px, y_px, brightness, back = seen
    height, width = total.shape
    size = coefficients.shape[1]
    half = size // 2
    wy, wx, slope = np.empty(4), np.empty(4), np.empty(4)
    for n in range(chosen.size):
        look = chosen[n]
        a, b, c, d = back[n, 0, 0], back[n, 0, 1], back[n, 1, 0], back[n, 1, 1]
        # rows of the inverse are how far the object reaches along y and x
        area = abs(a * d - b * c)
        far_y = reach_px[look] * np.sqrt(d * d + b * b) / area + 1.0
        far_x = reach_px[look] * np.sqrt(a * a + c * c) / area + 1.0
        top, bottom = max(int(np.ceil(y_px[n] - far_y)), 0), min(int(y_px[n] + far_y) + 1, height)
        left, right = max(int(np.ceil(x_px[n] - far_x)), 0), min(int(x_px[n] + far_x) + 1, width)
        image, mask, light = coefficients[look], outline[look], brightness[n]
        for row in range(top, bottom):
            dy = row - y_px[n]
            for column in range(left, right):
                dx = column - x_px[n]
                y, x = half + a * dy + b * dx, half + c * dy + d * dx
                if not (1.0 <= y < size - 2 and 1.0 <= x < size - 2):
                    continue
                on = mask[int(y + 0.5), int(x + 0.5)]
                if on <= 0.0:
                    continue
                first_y, first_x = int(y), int(x)
                weights(y - first_y, wy, slope)
                weights(x - first_x, wx, slope)
                value = 0.0
                for i in range(4):
                    line = 0.0
                    for j in range(4):
                        line += wx[j] * image[first_y - 1 + i, first_x - 1 + j]
                    value += wy[i] * line
                total[row, column] += light * value
                variance[row, column] += (light * on) ** 2 * noise[look]
