"""Neighbours in the corners of cutouts: taken out, or the average particle image would show their ghosts.

A neighbour stays where it is in all planes of a trace but is in no other trace, so it stands out from the average
particle. Where it does, the average takes its place; what is left of its ghost is then a part of a part.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from calibration.alignment.aligned import Aligned
from calibration.alignment.misfit import middle

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

SMOOTHED_PX = 5
STANDS_OUT_SIGMAS = 4.0
GROWN_PX = 4


def without_neighbours(
    contrast: Float32Array, aligned: Aligned, focus_um: FloatArray, noise_variance: float
) -> Float32Array:
    """Traces (N, K, P, P) of these positions, without what stands out from the average away from the middle."""
    now = aligned.positions
    out = np.array(contrast, np.float32)
    size = contrast.shape[-1]
    aside = ~middle(size // 2)
    limit = STANDS_OUT_SIGMAS * np.sqrt(noise_variance) / SMOOTHED_PX
    basis = aligned.basis.images.reshape(aligned.basis.count, -1).astype(np.float32)
    grown = 2 * GROWN_PX + 1
    for index, images in enumerate(out):
        spline = aligned.at(now.z_um[index] - focus_um)
        average = ((now.brightness[index] * spline).astype(np.float32) @ basis).reshape(images.shape)
        # whole pixels will do, as nothing fine is left so far out
        shift = (round(float(now.dy_px[index])), round(float(now.dx_px[index])))
        average = np.roll(average, shift, axis=(1, 2))
        left = ndimage.uniform_filter(images - average, (0, SMOOTHED_PX, SMOOTHED_PX))
        other = ndimage.maximum_filter((left > limit) & aside, (0, grown, grown)) & aside
        images[other] = average[other]
    return out
