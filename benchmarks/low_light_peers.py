"""Classical ways to find the one particle of an image, for comparison: radial symmetry and the centroid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

FloatArray = npt.NDArray[np.float64]
BRIGHT_PART = 0.5
"""Of the strongest deviation from the background, smoothed over 3 x 3 pixels, from which a pixel counts for the
centroid: as in thresholding by hand."""


def radial_symmetry(image: FloatArray) -> tuple[float, float]:
    """x and y (px from the middle) of the point to which the gradients of an image (H, H) lead.

    Parthasarathy (2012), Nature Methods 9, 724: gradients at the corners of pixels along the two diagonals,
    smoothed over 3 x 3, and the point with the least weighted squared distance to their lines; weights are the
    squared gradient over the distance from the gradient's centroid.
    """
    half = (image.shape[0] - 2) / 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    rising = uniform_filter(image[1:, 1:] - image[:-1, :-1], 3)  # along (1, 1)
    falling = uniform_filter(image[1:, :-1] - image[:-1, 1:], 3)  # along (-1, 1)
    by_x, by_y = rising - falling, rising + falling
    power = by_x**2 + by_y**2
    if not power.sum() > 0:
        return 0.0, 0.0
    centre_x, centre_y = (float((power * each).sum() / power.sum()) for each in (x, y))
    weight = power / np.maximum(np.hypot(x - centre_x, y - centre_y), 0.5)
    normal_x, normal_y = -by_y / np.sqrt(power + 1e-300), by_x / np.sqrt(power + 1e-300)
    away = normal_x * x + normal_y * y
    matrix = np.array(
        [
            [(weight * normal_x**2).sum(), (weight * normal_x * normal_y).sum()],
            [(weight * normal_x * normal_y).sum(), (weight * normal_y**2).sum()],
        ]
    )
    right = np.array([(weight * normal_x * away).sum(), (weight * normal_y * away).sum()])
    found = np.linalg.lstsq(matrix, right, rcond=None)[0]
    limit = image.shape[0] / 2
    return float(np.clip(found[0], -limit, limit)), float(np.clip(found[1], -limit, limit))


def centroid(image: FloatArray) -> tuple[float, float]:
    """x and y (px from the middle) of the centroid of what deviates from the median of an image (H, H)."""
    half = image.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    off = np.abs(uniform_filter(image - np.median(image), 3))
    weight = np.where(off >= BRIGHT_PART * off.max(), off, 0.0)
    total = max(float(weight.sum()), 1e-300)
    return float((weight * x).sum() / total), float((weight * y).sum() / total)
