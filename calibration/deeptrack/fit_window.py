"""How large a part of an image the fit of an object has to see: as large as its place is known well by.

Beside the object the fit finds a plane of background and the object's number. In a small window these are alike: a
wider disc, a darker ground and a slope take the place of each other, and the place is less well known than it could
be (for DeepTrack 1's spots by a quarter in windows that hold all but a thousandth of the light).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
MAY_LOSE = 0.03
"""Part by which the standard error of a place may be larger than in the largest window: windows of DeepTrack 1's
spots are then 12 px to each side, where 0.1 makes them 10 and 0.01 15 px."""
RIDGE = 1e-9
"""Of the largest information: two parameters that are the same would make the information singular."""


def padded(coefficients: FloatArray, half: int) -> FloatArray:
    """Spline coefficients (J, H, H), 0 around, up to `half` pixels from the centre."""
    more = max(0, half - coefficients.shape[1] // 2)
    return np.pad(coefficients, ((0, 0), (more, more), (more, more)))


def window_of(coefficients: FloatArray, least: IntArray) -> IntArray:
    """Pixels from the centre (J, 2), along y and x, from which on a larger window would say little more.

    `coefficients` (J, H, H) are those of an image model over a number, noise is taken as even, `least` (J, 2) are
    the pixels that hold the object's light.
    """
    size = coefficients.shape[1]
    half = size // 2
    images = ndimage.convolve1d(
        ndimage.convolve1d(coefficients, np.array([1, 4, 1]) / 6, axis=1), np.array([1, 4, 1]) / 6, axis=2
    )
    by_number = np.gradient(images, axis=0)
    by_y, by_x = np.gradient(images, axis=1), np.gradient(images, axis=2)
    v, u = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    ring = np.maximum(np.abs(u), np.abs(v)).astype(int)
    found = np.array(least, np.int64)
    for j in range(len(images)):
        terms = np.stack([by_x[j], by_y[j], images[j], by_number[j], np.ones_like(u), u, v]).reshape(7, -1)
        terms = terms / np.sqrt(np.maximum((terms**2).sum(axis=1, keepdims=True), 1e-300))
        each = terms[:, None] * terms[None]
        rings = np.stack([each[..., ring.ravel() == h].sum(axis=-1) for h in range(half + 1)])
        inside = np.cumsum(rings, axis=0) + RIDGE * np.eye(7)
        errors = np.sqrt(np.array([np.diagonal(np.linalg.inv(one))[:2].max() for one in inside[2:]]))
        enough = np.flatnonzero(errors <= (1 + MAY_LOSE) * errors[-1])
        found[j] = np.maximum(found[j], 2 + int(enough[0]))
    return np.asarray(np.minimum(ndimage.maximum_filter1d(found, 3, axis=0), half), np.int64)
