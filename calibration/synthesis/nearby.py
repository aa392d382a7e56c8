"""Choice of cut-outs by depth and by place in the field of view."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

FEWEST = 4
"""Cut-outs among which one is drawn: fewer make the images of a sparse scan alike, more come from further away."""


@njit(cache=True, nogil=True)
def choose_nearby(
    depths_um: Any, places_px: Any, wanted: Any, like_um: float, near_px: float, random: Any
) -> npt.NDArray[np.int64]:
    """Rows (N,) of a stock of M cut-outs for `wanted` (N, 3: depth um, x px, y px), at random (N,; 0 to 1).

    The stock has `depths_um` (M,), rising, and `places_px` (M, 2). One is drawn among those within `like_um` and
    `near_px`; where these are fewer than `FEWEST`, the depths are widened first and then the nearest are taken.
    """
    count = depths_um.size
    fewest = min(FEWEST, count)
    chosen = np.empty(wanted.shape[0], np.int64)
    distance = np.empty(count)
    for n in range(wanted.shape[0]):
        z, x, y = wanted[n, 0], wanted[n, 1], wanted[n, 2]
        low = np.searchsorted(depths_um, z - like_um)
        high = np.searchsorted(depths_um, z + like_um, side="right")
        while high - low < fewest:
            if high == count or (low > 0 and z - depths_um[low - 1] <= depths_um[high] - z):
                low -= 1
            else:
                high += 1
        near = 0
        for k in range(low, high):
            dx, dy = places_px[k, 0] - x, places_px[k, 1] - y
            distance[k] = dx * dx + dy * dy
            near += distance[k] <= near_px * near_px
        take = max(near, fewest)
        order = np.argsort(distance[low:high])
        chosen[n] = low + order[min(int(random[n] * take), take - 1)]
    return chosen
