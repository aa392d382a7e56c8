"""Windows around beads: their voxels, which of them count, and the variance of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Voxels around N beads: `values` (N, D, H, W) in grey values; those with `counts` False are not used.

    `centre` (N, 4) is the time point and the voxel (z, y, x) in the middle; `half` the voxels on each side of it.
    """

    values: FloatArray
    counts: BoolArray
    centre: IntArray
    half: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.values)

    def some(self, chosen: BoolArray | IntArray | slice) -> Windows:
        """The windows of some of the beads."""
        return replace(
            self, values=self.values[chosen], counts=self.counts[chosen], centre=self.centre[chosen]
        )


def cut(
    volumes: npt.NDArray[Any],
    centre: IntArray,
    half: tuple[int, int, int],
    *,
    others: list[FloatArray] | None = None,
    reach: FloatArray | None = None,
) -> Windows:
    """Cut windows out of volumes (T, Z, H, W) around the voxels `centre` (N, 4: time, z, y, x).

    Voxels outside the volume do not count, nor do those nearer than `reach` (3: z, y, x, half axes of an ellipsoid)
    to a neighbour; `others` has the positions (M, 3) of each bead's neighbours.
    """
    ranges = [np.arange(-h, h + 1) for h in half]
    size = tuple(len(r) for r in ranges)
    values = np.zeros((len(centre), *size))
    counts = np.zeros((len(centre), *size), bool)
    limits = volumes.shape[1:]
    for index, (time, *middle) in enumerate(centre.tolist()):
        places = [m + r for m, r in zip(middle, ranges, strict=True)]
        inside = [(p >= 0) & (p < limit) for p, limit in zip(places, limits, strict=True)]
        held = np.ix_(*(np.flatnonzero(mask) for mask in inside))
        taken = np.ix_(*(p[mask] for p, mask in zip(places, inside, strict=True)))
        values[index][held] = volumes[time][taken]
        counts[index][held] = True
        if others is not None and reach is not None:
            for other in others[index]:
                away = [((p - o) / r) ** 2 for p, o, r in zip(places, other, reach, strict=True)]
                near = away[0][:, None, None] + away[1][None, :, None] + away[2][None, None, :] < 1
                counts[index] &= ~near
    return Windows(values, counts, centre, half)
