"""Images of the model put on, and compared with, rectangles of a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from engines.refine.spline import TAPS, evaluate_window

# Columns of a particle's parameters, and of its rectangle.
X, Y, Z, A = range(4)
TOP, BOTTOM, LEFT, RIGHT = range(4)


@njit(cache=True, nogil=True)
def set_box(
    theta: Any, shape: Any, coefficients: Any, z: Any, extent: Any, spare_um: float, box: Any
) -> None:
    """Fill `box` (4,) with the rectangle that a particle at `theta` may cover within `spare_um` of its depth.

    `z` is (first node, step, least, greatest) in um. Nothing of it lies beyond the frame or the spline.
    """
    half = coefficients.shape[1] // 2
    low = min(max(int((theta[Z] - spare_um - z[0]) / z[1]), 0), extent.shape[0] - 1)
    high = min(max(int((theta[Z] + spare_um - z[0]) / z[1]) + 1, low), extent.shape[0] - 1)
    tall, wide = 0, 0
    for j in range(low, high + 1):
        tall = max(tall, extent[j, 0])
        wide = max(wide, extent[j, 1])
    y, x = int(np.rint(theta[Y])), int(np.rint(theta[X]))
    tall, wide = min(tall, half - 1), min(wide, half - 1)
    box[TOP], box[BOTTOM] = max(y - tall, 0), min(y + tall + 1, shape[0])
    box[LEFT], box[RIGHT] = max(x - wide, 0), min(x + wide + 1, shape[1])


@njit(cache=True, nogil=True)
def draw(theta: Any, box: Any, coefficients: Any, z: Any, gradients: bool, space: Any, out: Any) -> None:
    """Fill `out` (4, H, W) with the image of a particle of brightness 1 in its rectangle; `space` as below."""
    half = coefficients.shape[1] // 2
    evaluate_window(
        coefficients,
        (min(max(theta[Z], z[2]), z[3]) - z[0]) / z[1],
        half + box[TOP] - theta[Y],
        half + box[LEFT] - theta[X],
        box[BOTTOM] - box[TOP],
        box[RIGHT] - box[LEFT],
        1.0 / z[1],
        gradients,
        space[:2],
        space[2:],
        out,
    )


@njit(cache=True, nogil=True)
def work_space(coefficients: Any) -> Any:
    """Work space for `draw`."""
    size = coefficients.shape[1] + TAPS
    return np.empty((5, size, size), np.float32)


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def add(total: Any, theta: Any, box: Any, image: Any, factor: float) -> None:
    """Add a particle's image, times its brightness and `factor`, to `total` (H, W)."""
    a = np.float32(theta[A] * factor)
    for i in range(box[BOTTOM] - box[TOP]):
        line = total[box[TOP] + i, box[LEFT] : box[RIGHT]]
        for j in range(box[RIGHT] - box[LEFT]):
            line[j] += a * image[0, i, j]


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def best_brightness(frame: Any, total: Any, box: Any, image: Any) -> tuple[float, float]:
    """Brightness that fits best beside a constant background, and how much of the sum of squares it explains.

    `frame` less `total` is what there is to explain.
    """
    v1, d1, vv, vd = 0.0, 0.0, 0.0, 0.0
    for i in range(box[BOTTOM] - box[TOP]):
        seen = frame[box[TOP] + i, box[LEFT] : box[RIGHT]]
        drawn = total[box[TOP] + i, box[LEFT] : box[RIGHT]]
        for j in range(box[RIGHT] - box[LEFT]):
            v, d = image[0, i, j], seen[j] - drawn[j]
            v1 += v
            d1 += d
            vv += v * v
            vd += v * d
    n = (box[BOTTOM] - box[TOP]) * (box[RIGHT] - box[LEFT])
    if n < 2:
        return 0.0, 0.0
    spread, common = vv - v1 * v1 / n, vd - v1 * d1 / n
    if spread <= 0.0 or common <= 0.0:
        return 0.0, 0.0
    return common / spread, common * common / spread
