"""The generalised Gaussian of Franchini & Krevor (2020), equation (3), fitted to a particle image.

I = amplitude * exp(-(|x_r - x0| / a_x)^b_x - (|y_r - y0| / a_y)^b_y), in axes turned by an angle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.special import gamma

FloatArray = npt.NDArray[np.float64]

SMALLEST_WIDTH_PX = 0.4
SHAPES = (0.8, 8.0)


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

    `residual` is the rms difference over the amplitude.
    """
    data = image.astype(np.float64)
    half = data.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    turn = np.deg2rad(rotation_deg)
    along, across = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    top = float(data.max())
    weight = np.where(data > 0.2 * top, data, 0.0)
    total = weight.sum() + 1e-12
    start_x, start_y = (weight * along).sum() / total, (weight * across).sum() / total
    width_x = np.sqrt(2 * (weight * (along - start_x) ** 2).sum() / total) + SMALLEST_WIDTH_PX
    width_y = np.sqrt(2 * (weight * (across - start_y) ** 2).sum() / total) + SMALLEST_WIDTH_PX

    def model(p: FloatArray) -> FloatArray:
        first = (np.sqrt((along - p[1]) ** 2 + 1e-6) / p[3]) ** p[5]
        second = (np.sqrt((across - p[2]) ** 2 + 1e-6) / p[4]) ** p[6]
        value: FloatArray = p[0] * np.exp(-first - second)
        return value

    low = [0.0, -half, -half, SMALLEST_WIDTH_PX, SMALLEST_WIDTH_PX, SHAPES[0], SHAPES[0]]
    high = [5 * top + 1e-9, half, half, 2 * half, 2 * half, SHAPES[1], SHAPES[1]]
    start = np.clip([top, start_x, start_y, width_x, width_y, 2.0, 2.0], low, high)

    def difference(p: FloatArray) -> FloatArray:
        return (model(p) - data).ravel()

    scale = [max(top, 1e-9), 1, 1, 2, 2, 1, 1]
    fit = least_squares(difference, start, bounds=(low, high), x_scale=scale)
    amplitude, x0, y0, a_x, a_y, b_x, b_y = map(float, fit.x)
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
