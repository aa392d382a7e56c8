"""Particles in the mean of all planes of a scan, where each one is a single bright spot.

Out of focus a particle is a faint line or cross with several maxima. In the mean over the focus one maximum
remains, with a signal-to-noise ratio that no single image has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree
from scipy.stats import median_abs_deviation

FloatArray = npt.NDArray[np.float64]

THRESHOLD = 8.0
"""Height of a spot over the standard deviation of the filtered mean. Half or twice as much changes nothing in a
small simulated scan (rms depth error 0.082 um): particles reach 50 and more in the mean of all planes."""
RELATIVE = 0.06
"""Height of a spot over the standard deviation of the filtered mean. Half or twice as much changes nothing in a
small simulated scan (rms depth error 0.082 um)."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Spots at `x_px`, `y_px` (N,), with their height above the surroundings and its ratio to the noise."""

    x_px: FloatArray
    y_px: FloatArray
    height: FloatArray
    ratio: FloatArray

    def __len__(self) -> int:
        return self.x_px.size

    def neighbour_px(self) -> FloatArray:
        """Distance of each to its nearest neighbour, (N,); infinite for a single one."""
        if len(self) < 2:
            return np.full(len(self), np.inf)
        points = np.column_stack([self.x_px, self.y_px])
        distance: FloatArray = np.asarray(KDTree(points).query(points, k=2)[0])[:, 1]
        return distance


def find_candidates(mean: npt.NDArray[np.floating], *, spot_px: float, around_px: float) -> Candidates:
    """Maxima of a mean contrast image (H, W) filtered by the difference of two Gaussians of these widths."""
    image = mean.astype(np.float64)
    spots = ndimage.gaussian_filter(image, spot_px, mode="nearest")
    spots -= ndimage.gaussian_filter(image, around_px, mode="nearest")
    noise = float(median_abs_deviation(spots, axis=None, scale="normal")) + 1e-12
    size = 2 * round(max(2.0, 1.5 * spot_px)) + 1
    limit = np.median(spots) + THRESHOLD * noise
    peak = (ndimage.maximum_filter(spots, size, mode="nearest") == spots) & (spots > limit)
    rows, columns = np.nonzero(peak)
    height: FloatArray = spots[rows, columns]
    if height.size:
        strong = np.median(np.sort(height)[-max(3, height.size // 2) :])
        keep = height > RELATIVE * strong
        rows, columns, height = rows[keep], columns[keep], height[keep]
    x = columns + _vertex(spots, rows, columns, 1)
    y = rows + _vertex(spots, rows, columns, 0)
    return Candidates(x, y, height, height / noise)


def _vertex(
    image: FloatArray, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], axis: int
) -> FloatArray:
    """Sub-pixel place of a maximum along an axis: the vertex of a parabola."""
    size = image.shape[axis]
    at = rows if axis == 0 else columns
    low, high = np.maximum(at - 1, 0), np.minimum(at + 1, size - 1)
    before = image[low, columns] if axis == 0 else image[rows, low]
    after = image[high, columns] if axis == 0 else image[rows, high]
    middle = image[rows, columns]
    curve = before - 2 * middle + after
    inside = (at > 0) & (at < size - 1) & (curve < 0)
    shift: FloatArray = np.where(inside, 0.5 * (before - after) / np.where(inside, curve, 1.0), 0.0)
    return np.clip(shift, -0.5, 0.5)
