"""Positions from a map as published: its local maxima, whole voxels ("determining local maxima", section 2)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

IntArray = npt.NDArray[np.int64]


def local_maxima(
    found: npt.NDArray[np.float32], threshold: float
) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Voxels (N, 3) along z, y, x that no neighbour exceeds, and their values (N,), the largest first.

    Values are at least `threshold`, which is above 0. Neighbours that share a maximum, as where a mask is 1, are
    one place: the voxel of them nearest to their middle.
    """
    top = (found >= threshold) & (found == ndimage.maximum_filter(found, size=3, mode="nearest"))
    places = np.argwhere(top)
    if not len(places):
        return np.empty((0, 3), np.int64), np.empty(0)
    joined, count = ndimage.label(top, structure=np.ones((3, 3, 3)))
    which = joined[tuple(places.T)] - 1
    sizes = np.bincount(which, minlength=count)
    middle = np.stack([np.bincount(which, axis, count) / sizes for axis in places.T], axis=1)
    off = ((places - middle[which]) ** 2).sum(axis=1)
    order = np.lexsort((off, which))
    first = order[np.searchsorted(which[order], np.arange(count))]
    chosen = places[first]
    values = found[tuple(chosen.T)].astype(np.float64)
    strongest = np.argsort(-values, kind="stable")
    return chosen[strongest], values[strongest]
