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
    `ground` (N, 4) is the background that is known beforehand, with slopes along z, y, x, and `ground_error` (N, 4)
    how well; None where nothing is.
    """

    values: FloatArray
    counts: BoolArray
    centre: IntArray
    half: tuple[int, int, int]
    ground: FloatArray | None = None
    ground_error: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.values)

    def some(self, chosen: BoolArray | IntArray | slice) -> Windows:
        """The windows of some of the beads."""
        return replace(
            self,
            values=self.values[chosen],
            counts=self.counts[chosen],
            centre=self.centre[chosen],
            ground=None if self.ground is None else self.ground[chosen],
            ground_error=None if self.ground_error is None else self.ground_error[chosen],
        )

    def on_ground(self, background: FloatArray, error: FloatArray) -> Windows:
        """The same with the background known from a map (T, Z, H, W), to `error` (N,), grey values.

        Without it, a window cannot tell the wide faint halo of a real PSF from background.
        """
        known = cut(background, self.centre, self.half)
        terms = background_terms(self.half).reshape(4, -1)
        counts = known.counts.reshape(len(self), -1)
        normal = np.matmul(counts[:, None] * terms, terms.T) + 1e-9 * np.eye(4)
        right = np.where(counts, known.values.reshape(len(self), -1), 0.0) @ terms.T
        ground = np.linalg.solve(normal, right[..., None])[..., 0]
        reach = np.array([1.0, *self.half])
        return replace(self, ground=ground, ground_error=error[:, None] / reach)


def background_terms(half: tuple[int, int, int]) -> FloatArray:
    """Constant and slopes (4, D, H, W) of a window's background."""
    z, y, x = np.meshgrid(*(np.arange(-h, h + 1.0) for h in half), indexing="ij")
    return np.stack([np.ones_like(z), z, y, x])


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
