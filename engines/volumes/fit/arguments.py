"""Groups of arguments that the kernels of the fit in volumes share.

An array is annotated by its element type, its shape and unit stand in the docstring. Axes are in the order of the
image, z, y, x; lengths are in voxels, z in steps of the PSF's voxel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

Z, Y, X, A = range(4)
"""Parameters of a particle: the centre in voxels, the amplitude in grey values."""
PARTICLE = 4
BOX = 6
"""Numbers of a box: first slice, last + 1, first row, last + 1, first column, last + 1."""


class KernelPsf(NamedTuple):
    """The PSF in voxels: a Gaussian of `sigma` (3,), or where `measured` the spline of `VolumePsf`.

    `coefficients` (J, K, L), `per_voxel` (3,) nodes a voxel, `centre` (3,) node of the point. `reach` (3,): the
    distance from the point that is looked at. `misfit` is that of `VolumePsf`.
    """

    sigma: FloatArray
    reach: FloatArray
    measured: bool
    coefficients: Float32Array
    per_voxel: FloatArray
    centre: FloatArray
    misfit: float


class Stack(NamedTuple):
    """A volume: `image` (D, H, W) in grey values less the offset, `seen` (D,) whether a slice has an image.

    `heights` (D,) are the slices' z, rising. The background, less the offset, is on a `grid` (D, h, w) of cells
    `cell` voxels long and wide. A voxel's variance is `gain` x light + `read`. The deviation of the local
    background has the prior precision `stiffness`, 1 / grey value^2; 0 where nothing is known of it. `density` is
    how many particles there are in a voxel, on average. Where the volume is `flat`, with an image in one slice,
    z is not fitted.
    """

    image: Float32Array
    seen: BoolArray
    heights: FloatArray
    grid: Float32Array
    cell: int
    gain: float
    read: float
    stiffness: float
    density: float
    flat: bool


class Room(NamedTuple):
    """Work space of one thread for groups of up to G particles with boxes of S voxels in a window of V.

    `images`, `fresh` (G + 1, 4, S): derivatives by z, y, x, and the value; the last is for `rendering.put`. `data`,
    `base` (background and other particles), `inside` (1 where a voxel counts), `weight`, `residual`, `light`,
    `reference` and the two `spare` ones (V,) are windows. `profile` (3, 2, L) are the profiles along the axes,
    `packed` (2, S) weight and weighed residual of a box, `planes` (5, K, L) space for a measured PSF.
    """

    images: Float32Array
    fresh: Float32Array
    data: Float32Array
    base: Float32Array
    inside: Float32Array
    weight: Float32Array
    residual: Float32Array
    light: Float32Array
    reference: Float32Array
    spare: Float32Array
    other_spare: Float32Array
    profile: Float32Array
    packed: Float32Array
    planes: Float32Array
