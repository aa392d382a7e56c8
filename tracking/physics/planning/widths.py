"""Localisation errors over depth of an astigmatic microscope, from the widths of its images and the noise."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tracking.physics.planning.view import Localisation

FloatArray = npt.NDArray[np.float64]

WIDEST = 0.25
"""Standard error of depth over the depth range from which a depth is not measured."""


def errors_from_widths(
    z_um: FloatArray,
    sigma_x_um: FloatArray,
    sigma_y_um: FloatArray,
    amplitude: FloatArray,
    snr: float,
    pixel_um: float,
    width_scatter: float,
) -> Localisation:
    """Cramer-Rao bounds of a Gaussian spot of unknown brightness, whose depth its two widths tell; (Z,) each.

    `amplitude` is relative to the largest, `snr` the largest over the noise of a pixel. With J = pi A^2 s_x s_y /
    (noise^2 pixel^2) the information is J / (2 s_x^2) of x, J 3/4 of each ln s, J/4 of both, J/2 of ln s and ln A,
    J of ln A (integrals of the Gaussian's derivatives over the plane). `width_scatter` is a relative error of the
    widths that brightness does not lower. Depths whose error exceeds a quarter of the range are left out.
    """
    strength = math.pi * (snr * amplitude) ** 2 * sigma_x_um * sigma_y_um / pixel_um**2
    of_widths = np.linalg.inv(np.array([[0.75, 0.25, 0.5], [0.25, 0.75, 0.5], [0.5, 0.5, 1.0]]))[:2, :2]
    slope = np.stack([np.gradient(np.log(s), z_um) for s in (sigma_x_um, sigma_y_um)], axis=1)
    covariance = of_widths / strength[:, None, None] + width_scatter**2 * np.eye(2)
    known = np.einsum("zi,zij,zj->z", slope, np.linalg.inv(covariance), slope)
    error_z = 1.0 / np.sqrt(np.maximum(known, 1e-30))
    kept = error_z < WIDEST * float(np.ptp(z_um))
    in_plane = [s * np.sqrt(2.0 / strength) for s in (sigma_x_um, sigma_y_um)]
    return Localisation(z_um[kept], np.stack([*in_plane, error_z])[:, kept])
