"""Local maxima of a filtered image, and the strongest one of those that belong to one particle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]


@njit(cache=True, nogil=True)
def local_maxima(
    response: Float32Array,
    sign: float,
    sigma: float,
    threshold: float,
    binning: int,
    number: int,
    found: FloatArray,
    count: int,
) -> int:
    """Append the maxima of `sign * response` above `threshold * sigma` to `found`; return the new count.

    Positions are refined by a parabola through the neighbours and given in pixels of the unbinned image.
    """
    height, width = response.shape
    limit = threshold * sigma
    for row in range(height):
        for column in range(width):
            value = sign * response[row, column]
            if value < limit:
                continue
            highest = True
            for r in range(max(0, row - 1), min(height, row + 2)):
                for c in range(max(0, column - 1), min(width, column + 2)):
                    other = sign * response[r, c]
                    if other > value or (other == value and (r, c) < (row, column)):
                        highest = False
            if not highest or count == found.shape[1]:
                continue
            shift_x = 0.0
            shift_y = 0.0
            if 0 < column < width - 1:
                shift_x = _parabola(sign * response[row, column - 1], value, sign * response[row, column + 1])
            if 0 < row < height - 1:
                shift_y = _parabola(sign * response[row - 1, column], value, sign * response[row + 1, column])
            found[0, count] = (column + shift_x + 0.5) * binning - 0.5
            found[1, count] = (row + shift_y + 0.5) * binning - 0.5
            found[2, count] = number
            found[3, count] = value / sigma
            count += 1
    return count


@njit(cache=True, nogil=True)
def _parabola(left: float, middle: float, right: float) -> float:
    curvature = left - 2 * middle + right
    if curvature >= 0:
        return 0.0
    return 0.5 * (left - right) / curvature


@njit(cache=True, nogil=True)
def strongest_only(found: FloatArray, shapes: FloatArray, reach: float) -> npt.NDArray[np.int64]:
    """Return the columns of `found` (strongest first) that are not within `reach` widths of a stronger one.

    The widths are those of the stronger candidate's template, (K, 2), or of the weaker one's where those are
    both larger: a large filter over a small bright particle answers beside its centre.
    """
    kept = np.empty(found.shape[1], np.int64)
    count = 0
    for candidate in range(found.shape[1]):
        own_x = shapes[int(found[2, candidate]), 0]
        own_y = shapes[int(found[2, candidate]), 1]
        new = True
        for other in kept[:count]:
            dx = found[0, candidate] - found[0, other]
            dy = found[1, candidate] - found[1, other]
            wide_x = reach * shapes[int(found[2, other]), 0]
            wide_y = reach * shapes[int(found[2, other]), 1]
            if (dx / wide_x) ** 2 + (dy / wide_y) ** 2 < 1 or (dx / own_x) ** 2 + (dy / own_y) ** 2 < 1:
                new = False
                break
        if new:
            kept[count] = candidate
            count += 1
    return kept[:count]
