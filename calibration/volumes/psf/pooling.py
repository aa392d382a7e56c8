"""The one Gaussian of all beads: their common widths, fitted together with everything of each bead's own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from calibration.volumes.psf.fitting import LINEAR, BeadFits, fit_beads, normal_equations
from calibration.volumes.psf.shapes import GaussianShape
from calibration.volumes.windows import Windows, background_terms
from engines.volumes.surroundings.noise import Noise

FloatArray = npt.NDArray[np.float64]

ROUNDS = 12
CONVERGED = 1e-4


def common_gaussian(
    windows: Windows, noise: Noise, sigma: FloatArray
) -> tuple[GaussianShape, FloatArray, BeadFits]:
    """The Gaussian that fits all beads best, the standard errors (3,) of its log widths, and the beads' fits.

    Widths that are averaged over beads, each with its own, are biased where beads are dim; here they are common to
    all from the beginning (each bead's own parameters are eliminated from the normal equations).
    """
    shape = GaussianShape(np.asarray(sigma, np.float64))
    fits = fit_beads(windows, shape, noise)
    for _ in range(ROUNDS):
        widened = np.concatenate(
            [fits.parameters, np.broadcast_to(np.log(shape.sigma), (len(windows), 3))], axis=1
        )
        gradient, normal = _reduced(windows, shape, noise, widened)
        step = np.clip(np.linalg.solve(normal, gradient), -0.3, 0.3)
        shape = GaussianShape(shape.sigma * np.exp(step))
        fits = fit_beads(windows, shape, noise, fits.parameters)
        if np.abs(step).max() < CONVERGED:
            break
    return shape, np.sqrt(np.diag(np.linalg.inv(normal))), fits


def _reduced(
    windows: Windows, shape: GaussianShape, noise: Noise, parameters: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Gradient (3,) and information (3, 3) of the common log widths, each bead's own parameters eliminated."""
    gradient, information = np.zeros(3), np.zeros((3, 3))
    terms = background_terms(windows.half)
    piece = max(1, 12_000_000 // (windows.values[0].size * (LINEAR + 9)))
    for k in range(0, len(windows), piece):
        rows = slice(k, k + piece)
        _, slope, normal = normal_equations(
            windows.some(rows), shape, noise, parameters[rows], terms, True, True
        )
        own, mixed = normal[:, :LINEAR, :LINEAR], normal[:, :LINEAR, LINEAR:]
        ridge = 1e-9 * np.einsum("nii->ni", own)[:, :, None] * np.eye(LINEAR)
        solved = np.linalg.solve(own + ridge, np.concatenate([mixed, slope[:, :LINEAR, None]], axis=2))
        gradient += (slope[:, LINEAR:] - np.einsum("npk,np->nk", mixed, solved[..., 3])).sum(axis=0)
        information += (normal[:, LINEAR:, LINEAR:] - mixed.transpose(0, 2, 1) @ solved[..., :3]).sum(axis=0)
    return gradient, information
