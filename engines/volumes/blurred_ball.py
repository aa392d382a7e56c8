"""The image of a ball of even light behind a Gaussian PSF: particles that are larger than the PSF."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from engines.volumes.psf import VolumePsf

FloatArray = npt.NDArray[np.float64]
Triple = tuple[float, float, float]

BALL_VARIANCE = 5.0
"""Squared radius of a ball over the variance of its light along an axis."""
FAR = 3.5
"""Standard deviations of the PSF to which the ball's rim is drawn: 2e-4 is beyond."""
NODES, FINE = 4, 2
"""Nodes of the spline per standard deviation of the whole along an axis, and samples per node for the ball's
edge."""


def blurred_ball(sigma_um: Triple, roundness: float, voxel_um: Triple) -> VolumePsf:
    """A ball behind a Gaussian, whose light has the standard deviations `sigma_um` (z, y, x) in all.

    The ball has the part `roundness` (0 to below 1) of the least of the three variances: its radius is
    sqrt(5 roundness) times the least standard deviation. 0 is a Gaussian.
    """
    if roundness <= 0:
        return VolumePsf(voxel_um, sigma_um)
    sigma = np.asarray(sigma_um, np.float64)
    radius = float(np.sqrt(BALL_VARIANCE * roundness) * sigma.min())
    blur = np.sqrt(sigma**2 - radius**2 / BALL_VARIANCE)
    step = sigma / NODES
    half = np.ceil((radius + FAR * blur) / step).astype(int) + 1
    fine = step / FINE
    z, y, x = np.meshgrid(
        *(np.arange(-FINE * h, FINE * h + 1) * f for h, f in zip(half, fine, strict=True)),
        indexing="ij",
        sparse=True,
    )
    distance = np.sqrt(z**2 + y**2 + x**2)
    ball = np.clip((radius - distance) / float(fine.mean()) + 0.5, 0.0, 1.0)
    image = gaussian_filter(ball, blur / fine, mode="constant", truncate=4.0)[::FINE, ::FINE, ::FINE]
    return VolumePsf.measured(image, step.tolist(), voxel_um)
