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

    def inner(self, half: tuple[int, int, int]) -> Windows:
        """The middle of the windows, `half` voxels on each side."""
        part = tuple(slice(h - n, h + n + 1) for h, n in zip(self.half, half, strict=True))
        return replace(self, values=self.values[:, *part], counts=self.counts[:, *part], half=half)

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


FARTHER = 1.7
"""5 over 3: a neighbour's halo is masked to 5 standard deviations where the bead itself shows only its own."""


def _away(places: list[IntArray], middle: FloatArray, reach: FloatArray) -> FloatArray:
    """Squared distances (D, H, W) of voxels from `middle` (3,), over `reach`."""
    z, y, x = (((p - m) / r) ** 2 for p, m, r in zip(places, middle, reach, strict=True))
    return np.asarray(z[:, None, None] + y[None, :, None] + x[None, None, :])


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
    to a neighbour; `others` has the positions (M, 3) of each bead's neighbours. Farther from the bead than `reach`
    itself, `FARTHER` times that distance from a neighbour is kept, as wide windows show its halo.
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
            own = _away(places, np.asarray(middle, np.float64), reach)
            for other in others[index]:
                away = _away(places, other, reach)
                counts[index] &= (away >= 1) & ((away >= FARTHER**2) | (own < 1))
    return Windows(values, counts, centre, half)
