"""What the networks are trained to answer: DM-DetNet3D's density map and weights, DetNet3D's mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

SIGMA = (1.0, 1.0, 1.0)
"""Standard deviations of a point in the density map along z, y and x, voxels. The paper gives none. A particle of
the stand-in scene is known to 0.5 voxels at SNR 1 and pairs closer than two deviations share a maximum, so the
size is between both."""
REACH = 4.0
"""Standard deviations to which a point is drawn; 3e-4 of its peak is left out."""
EXTRA_WEIGHT = 10.0
"""The paper's lambda: weight of particles and what is near them, over that of the rest."""
NEAR = 0.2
"""The paper's T, which it does not give: values of the dilated density map from here on get the extra weight. With
the deviation of 1 this takes in what is up to some 3 voxels off a point."""


def density_map(
    points: npt.NDArray[np.floating],
    shape: tuple[int, int, int],
    sigma: tuple[float, float, float] = SIGMA,
) -> npt.NDArray[np.float32]:
    """One map (Z, H, W) within 0 to 1 of Gaussians with peak 1 around `points` (N, 3), voxels along z, y, x.

    Where several reach, the largest counts. A point between voxels has its peak between them, as "Gaussian
    distributions centred around the annotated positions rather than discrete image points" (section 2).
    """
    target = np.zeros(shape, np.float32)
    for point in points:
        part, squares = [], []
        for middle, width, count in zip(point, sigma, shape, strict=True):
            first = max(0, int(np.ceil(middle - REACH * width)))
            last = min(count - 1, int(np.floor(middle + REACH * width)))
            part.append(slice(first, max(first, last + 1)))
            squares.append(((np.arange(first, last + 1) - middle) / width) ** 2)
        z, y, x = squares
        here = target[tuple(part)]
        np.maximum(here, np.exp(-0.5 * (z[:, None, None] + y[:, None] + x)), out=here)
    return target


def weight_map(target: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Weights (Z, H, W) of the voxels' losses (equation 2): 1, more where the dilated map reaches `NEAR`."""
    near = ndimage.maximum_filter(target, size=3, mode="nearest") >= NEAR
    return np.where(near, np.float32(1 + EXTRA_WEIGHT), np.float32(1))


def binary_mask(points: npt.NDArray[np.floating], shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """DetNet3D's mask (Z, H, W): 1 in the voxel nearest to each of `points` and in its six neighbours, else 0.

    "Each particle is represented by one or a few pixels in the binary ground truth mask" (section 1).
    """
    mask = np.zeros(shape, bool)
    size = np.array(shape)
    nearest = np.rint(points).astype(np.int64).reshape(-1, 3)
    nearest = nearest[((nearest >= 0) & (nearest < size)).all(axis=1)]
    mask[tuple(nearest.T)] = True
    return ndimage.binary_dilation(mask).astype(np.float32)
