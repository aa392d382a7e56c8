"""The generalised Gaussian of Franchini & Krevor (2020), equation (3), fitted to a particle image.

I = amplitude * exp(-(|x_r - x0| / a_x)^b_x - (|y_r - y0| / a_y)^b_y), in axes turned by an angle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.special import expit, gamma

FloatArray = npt.NDArray[np.float64]

SMALLEST_WIDTH_PX = 0.4
"""Lower limit of a width, px: a narrower Gaussian lies between the pixels."""
SHAPES = (0.8, 8.0)
"""Limits of the exponents, from a cusp to nearly a box; fitted images have 1.5 to 4."""
GAUSSIAN = (-1.6, -1.6)
"""Start of the fit: both exponents are 2, those of a Gaussian."""
MOST_EVALUATIONS = 400
"""Evaluations of the residuals after which a fit ends, converged or not."""


@dataclass(frozen=True, slots=True)
class GeneralisedGaussian:
    """Centre from the middle pixel, standard deviations and exponents along both axes, and the angle."""

    x_px: float
    y_px: float
    sigma_x_px: float
    sigma_y_px: float
    shape_x: float
    shape_y: float
    rotation_deg: float
    amplitude: float
    residual: float


def sigma_of(width: float, shape: float) -> float:
    """Standard deviation of exp(-(|x| / width)^shape)."""
    return float(width * np.sqrt(gamma(3 / shape) / gamma(1 / shape)))


def fit_generalised_gaussian(
    image: npt.NDArray[np.floating], *, rotation_deg: float = 0.0
) -> GeneralisedGaussian:
    """Fit an image (P, P) of contrast, positive at the particle, at a given angle of the axes.

    `residual` is the rms of the residuals over the amplitude.
    """
    data = image.astype(np.float64)
    half = data.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    turn = np.deg2rad(rotation_deg)
    along, across = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    top = max(float(data.max()), 1e-12)
    weight = np.where(data > 0.2 * top, data, 0.0)
    total = weight.sum() + 1e-12
    start_x, start_y = (weight * along).sum() / total, (weight * across).sum() / total
    width_x = np.sqrt(2 * (weight * (along - start_x) ** 2).sum() / total) + SMALLEST_WIDTH_PX
    width_y = np.sqrt(2 * (weight * (across - start_y) ** 2).sum() / total) + SMALLEST_WIDTH_PX

    def unpack(p: FloatArray) -> tuple[float, float, float, float, float, float, float]:
        a_x, a_y = np.exp(np.clip(p[3:5], np.log(SMALLEST_WIDTH_PX), np.log(4.0 * half)))
        b_x, b_y = SHAPES[0] + (SHAPES[1] - SHAPES[0]) * expit(p[5:7])
        return top * p[0], p[1], p[2], a_x, a_y, b_x, b_y

    def difference(p: FloatArray) -> FloatArray:
        amplitude, x0, y0, a_x, a_y, b_x, b_y = unpack(p)
        first = (np.sqrt((along - x0) ** 2 + 1e-6) / a_x) ** b_x
        second = (np.sqrt((across - y0) ** 2 + 1e-6) / a_y) ** b_y
        value: FloatArray = (amplitude * np.exp(-first - second) - data).ravel()
        return value

    start = np.array([1.0, start_x, start_y, np.log(width_x), np.log(width_y), *GAUSSIAN])
    fit = least_squares(difference, start, method="lm", max_nfev=MOST_EVALUATIONS)
    amplitude, x0, y0, a_x, a_y, b_x, b_y = map(float, unpack(fit.x))
    return GeneralisedGaussian(
        x_px=float(x0 * np.cos(turn) - y0 * np.sin(turn)),
        y_px=float(x0 * np.sin(turn) + y0 * np.cos(turn)),
        sigma_x_px=sigma_of(a_x, b_x),
        sigma_y_px=sigma_of(a_y, b_y),
        shape_x=b_x,
        shape_y=b_y,
        rotation_deg=rotation_deg,
        amplitude=amplitude,
        residual=float(np.sqrt(np.mean(fit.fun**2)) / max(amplitude, 1e-12)),
    )
