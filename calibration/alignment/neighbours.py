"""Removal of neighbours from the corners of cut-outs; otherwise the PSF would show their ghosts.

A neighbour stays in its place in all planes of one trace and is in no other trace, so it stands out from the
PSF. Where it does, the PSF replaces it. Two rounds leave a negligible part of its ghost.
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
"""Side of the square, px, over which residuals are averaged. Half or twice as much changes nothing in a small
simulated scan (rms depth error 0.082 um)."""
STANDS_OUT_SIGMAS = 4.0
"""Standard deviations of the averaged noise above which a residual is a neighbour. At 2, noise is removed too and
the error along x doubles; at 8 nothing changes."""
GROWN_PX = 4
"""Pixels around a neighbour that are replaced as well. Half or twice as much changes nothing."""

OWN_PART = 0.3
"""Part of a particle's own image near a pixel by which it may differ from what is expected there, as particles of
other sizes do. Neighbours on a slide are as bright as the particle; without it rings of larger ones would be taken
for neighbours."""


def without_neighbours(
    contrast: Float32Array, aligned: Aligned, focus_um: FloatArray, noise_variance: float
) -> Float32Array:
    """Traces (N, K, P, P) without the structures away from their middle that stand out from the PSF."""
    now = aligned.positions
    out = np.array(contrast, np.float32)
    basis = aligned.basis.images.reshape(aligned.basis.count, -1).astype(np.float32)
    for index, images in enumerate(out):
        spline = aligned.at(now.z_um[index] - focus_um)
        average = ((now.brightness[index] * spline).astype(np.float32) @ basis).reshape(images.shape)
        # whole pixels suffice: the images have no fine structure so far out
        shift = (round(float(now.dy_px[index])), round(float(now.dx_px[index])))
        average = np.roll(average, shift, axis=(1, 2))
        _replace(images, average, noise_variance, 0.0)
    return out


def replace_neighbours(
    contrast: Float32Array, expected: Float32Array, seen: npt.NDArray[np.bool_], noise_variance: float
) -> None:
    """Replace what stands out from the `expected` images (K, P, P) of one trace in planes that are `seen` (K,)."""
    images = contrast[seen]
    _replace(images, expected[seen], noise_variance, OWN_PART)
    contrast[seen] = images


def _replace(images: Float32Array, expected: Float32Array, noise_variance: float, own_part: float) -> None:
    aside, grown = ~middle(images.shape[-1] // 2), (0, 2 * GROWN_PX + 1, 2 * GROWN_PX + 1)
    limit = STANDS_OUT_SIGMAS * np.sqrt(noise_variance) / SMOOTHED_PX
    if own_part:
        limit = limit + own_part * ndimage.maximum_filter(np.abs(expected), grown)
    left = ndimage.uniform_filter(images - expected, (0, SMOOTHED_PX, SMOOTHED_PX))
    other = ndimage.maximum_filter((left > limit) & aside, grown) & aside
    images[other] = expected[other]
