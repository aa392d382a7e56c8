"""The fit of one particle that is known to stand alone: depth search and fit, no other number of particles is
tried."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engines.refine.arguments import Float32Array, FloatArray, Noise, Particles, Prior
from engines.refine.fitting import SEARCH_STEP_UM
from engines.refine.frame import UNTRIED, begin_frame, fit_frame
from engines.refine.joint_fit import CONVERGED
from engines.refine.psf import FitModel


class Lone(NamedTuple):
    """x, y in px, z in um, brightness (4,); their standard errors from noise (4,), and the reduced chi-square."""

    theta: FloatArray
    sigma: FloatArray
    chi_square: float


def fit_lone(
    contrast: Float32Array,
    model: FitModel,
    start: FloatArray,
    span_um: float,
    noise: tuple[float, float],
    total: Float32Array | None = None,
) -> Lone | None:
    """Fit a particle near `start` (3,: x px, y px, z um) in an image (H, W), looking `span_um` up and down in
    depth.

    `noise` is the variance of the contrast, (read, shot x relative brightness); `total` a work image of the same
    size. None where the fit does not converge.
    """
    psf = model.for_kernels(contrast.shape)
    work = np.zeros_like(contrast) if total is None else total
    work.fill(0)
    variance = Noise(float(noise[0]), float(noise[1]), -1.0 if model.polarity == "dark" else 1.0)
    theta = np.zeros((1, 4))
    theta[0, :3] = start
    theta[0, 2] = np.clip(theta[0, 2], model.z_min_um, model.z_max_um)
    there = np.ones(1, np.bool_)
    covariance, fit = np.full((1, 4, 4), np.nan), np.full((1, 2), np.nan)
    particles = Particles(theta, covariance, fit, np.full(1, UNTRIED), there)
    begin_frame(contrast, work, theta, np.full(1, float(span_um)), SEARCH_STEP_UM, psf, variance, there)
    fit_frame(contrast, work, particles, psf, variance, Prior(0.0, 0.0), there)
    with np.errstate(invalid="ignore"):
        sigma = np.sqrt(np.diagonal(covariance[0]))
    if particles.state[0] != CONVERGED or not np.isfinite(sigma).all():
        return None
    return Lone(theta[0], sigma, float(fit[0, 0]))
