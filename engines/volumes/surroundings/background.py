"""The background of a volume: a coarse grid of grey values for each slice, straight between its points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """Background in grey values.

    `grid` (Z, h, w) holds the background at the centres of cells of `cell_px` x `cell_px` pixels (the last cell of
    a row or column may be smaller, its centre is taken as if it were not); beyond the outermost centres it is
    continued as it is there. `sd` is how far the background at a place may differ from it, grey values (standard
    deviation; NaN: not known). Where particles leave hardly any background (`crowded`) it is the darkest of what
    lies between them.
    """

    grid: Float32Array
    cell_px: int
    sd: float = math.nan
    crowded: bool = False

    def at(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Background at positions (N,) in voxels, of the nearest slice."""
        depth, height, width = self.grid.shape
        k = np.clip(np.rint(z), 0, depth - 1).astype(np.intp)
        j0, j1, v = _between(y, self.cell_px, height)
        i0, i1, u = _between(x, self.cell_px, width)
        upper = (1 - u) * self.grid[k, j0, i0] + u * self.grid[k, j0, i1]
        lower = (1 - u) * self.grid[k, j1, i0] + u * self.grid[k, j1, i1]
        return np.asarray((1 - v) * upper + v * lower, np.float64)

    def field(self, height: int, width: int) -> Float32Array:
        """Background of every voxel (Z, height, width), float32. For comparisons: the filters need no
        such array."""
        j0, j1, v = _between(np.arange(height, dtype=np.float64), self.cell_px, self.grid.shape[1])
        i0, i1, u = _between(np.arange(width, dtype=np.float64), self.cell_px, self.grid.shape[2])
        rows = self.grid[:, j0] + v[:, None] * (self.grid[:, j1] - self.grid[:, j0])
        return np.asarray(rows[:, :, i0] + u * (rows[:, :, i1] - rows[:, :, i0]), np.float32)

    @classmethod
    def flat(cls, value: float, depth: int) -> Background:
        """The same grey value everywhere in `depth` slices."""
        return cls(np.full((depth, 1, 1), value, np.float32), 1)


def _between(
    place: FloatArray, cell_px: int, cells: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]:
    """The two cells around each place, and how far it is from the first one to the second (0 to 1)."""
    along = np.clip((np.asarray(place, np.float64) + 0.5) / cell_px - 0.5, 0, cells - 1)
    first = along.astype(np.intp)
    return first, np.minimum(first + 1, cells - 1), along - first
