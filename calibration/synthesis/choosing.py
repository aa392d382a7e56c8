"""Choice of cut-outs by depth and by place in the field of view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from calibration.synthesis.inputs import Cutouts, Distribution

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LIKE_DEPTHS = 200
_LIKE_NEAR = 40
"""Where place counts too, depths within a fortieth of the range are alike, so that there is a choice of places; the
truth is a cut-out's own depth in any case."""
_NEAR = 0.15
"""Distance over the longer side of the field within which particles look alike. Weights of degree 2 change by less
than a third of their range over it; half of it leaves 50 beads no choice, twice it mixes edge and middle."""
FEWEST = 4
"""Cut-outs among which one is drawn: fewer make the images of a sparse scan alike, more come from further away."""


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """Cut-outs (M,) to choose from: their rows, depths (rising), reach (M, 2), and places (M, 2) if these count.

    `depth` is the distribution of depths that is wanted, `near_px` how far apart particles look alike.
    """

    row: IntArray
    z_um: FloatArray
    reach_px: FloatArray
    places_px: FloatArray | None
    near_px: float
    depth: Distribution

    @classmethod
    def of(
        cls,
        cutouts: Cutouts,
        reach_px: FloatArray,
        rows: IntArray,
        field_shape: tuple[int, int] | None,
        depth: Distribution | None,
    ) -> Choice:
        """Among some `rows` of the cut-outs; by default all depths that they have are wanted alike."""
        row = rows[np.argsort(cutouts.z_um[rows], kind="stable")]
        z_um = cutouts.z_um[row]
        places, near_px = None, 0.0
        if field_shape is not None and cutouts.place_px is not None:
            places, near_px = cutouts.place_px[row], _NEAR * max(field_shape)
        wanted = depth or Distribution.uniform(z_um[0], z_um[-1])
        return cls(row, z_um, reach_px[row], places, near_px, wanted)

    def by_depth(self, rng: np.random.Generator, target: FloatArray) -> IntArray:
        """Cut-outs (N,) whose depths are nearly the ones that are wanted, any of those at like depth."""
        like_um = (self.z_um[-1] - self.z_um[0]) / _LIKE_DEPTHS
        low = np.searchsorted(self.z_um, target - like_um, side="left")
        high = np.searchsorted(self.z_um, target + like_um, side="right")
        place = low + (rng.random(target.size) * (high - low)).astype(np.int64)
        alone = high == low
        place[alone] = _nearest(self.z_um, target[alone])
        chosen: IntArray = self.row[place]
        return chosen

    def by_place(self, rng: np.random.Generator, target: FloatArray, x: IntArray, y: IntArray) -> IntArray:
        """As `by_depth`, for particles at x, y (N,) in the field, of those that were seen near there."""
        assert self.places_px is not None
        like_um = (self.z_um[-1] - self.z_um[0]) / _LIKE_NEAR
        wanted, random = np.column_stack([target, x, y]), rng.random(target.size)
        chosen: IntArray = self.row[
            choose_nearby(self.z_um, self.places_px, wanted, like_um, self.near_px, random)
        ]
        return chosen

    def reach_at(self, z_um: FloatArray) -> FloatArray:
        """Reach (N, 2) at depths (N,)."""
        return np.stack([np.interp(z_um, self.z_um, self.reach_px[:, axis]) for axis in (0, 1)], axis=1)


def _nearest(rising: FloatArray, values: FloatArray) -> IntArray:
    right = np.clip(np.searchsorted(rising, values), 1, max(1, rising.size - 1))
    left = right - 1
    right = np.minimum(right, rising.size - 1)
    return np.where(values - rising[left] <= rising[right] - values, left, right)


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
