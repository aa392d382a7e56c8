"""Images of DeepTrack 1: one particle in an image of 51 x 51 px, with shot noise; and what they allow at best.

The generator is that of the published code (Helgadottir, Argun & Volpe 2019, Optica 6, 506; `deeptrack.py`,
`generate_image`), written anew from its equations: particles are squared Bessel functions,

    I = clip(b + g (x sin a + y cos a) / (sqrt(2) 51) + A 4 n^2.5 (J_n(r / R) / (r / R))^2, 0, 1)    (1)

with the order n 1 (a spot) or 2 (a ring), and an image is Poisson(I S^2) / S^2, S the "signal-to-noise ratio": S^2
are the photons of a pixel at full scale. A camera gives the counts themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import jv

FloatArray = npt.NDArray[np.float64]

SIZE = 51
"""px, side of an image."""
RADIUS_PX = (1.5, 3.0)
INTENSITY = (0.2, 0.6)
LIGHT = (0.2, 0.8)
"""Ranges of the published training images: radius, what a particle adds or takes, and the background."""
PLACE_SD_PX = 1.0
"""px; places are normally distributed about the middle."""


@dataclass(frozen=True, slots=True)
class Particle:
    """What (1) needs: place from the middle (px), radius (px), intensity, background, gradient, its angle, n."""

    x_px: float
    y_px: float
    radius_px: float
    intensity: float
    light: float
    gradient: float
    angle_rad: float
    order: int


def draw_particle(
    rng: np.random.Generator,
    gradient: float,
    orders: tuple[int, ...] = (1, 2),
    signs: tuple[int, ...] = (-1, 1),
) -> Particle:
    """A particle as the published training draws it, with this gradient."""
    x, y = rng.normal(0.0, PLACE_SD_PX, 2)
    return Particle(
        float(x),
        float(y),
        float(rng.uniform(*RADIUS_PX)),
        float(rng.choice(signs) * rng.uniform(*INTENSITY)),
        float(rng.uniform(*LIGHT)),
        gradient,
        float(rng.uniform(-np.pi, np.pi)),
        int(rng.choice(orders)),
    )


def clean(p: Particle, size: int = SIZE) -> FloatArray:
    """The image (size, size) of (1) without noise, rows y and columns x."""
    half = size // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    ground = p.light + p.gradient * (x * np.sin(p.angle_rad) + y * np.cos(p.angle_rad)) / (np.sqrt(2) * size)
    return np.clip(ground + p.intensity * shape(np.hypot(x - p.x_px, y - p.y_px), p), 0.0, 1.0)


def shape(distance_px: FloatArray, p: Particle) -> FloatArray:
    """What multiplies the intensity in (1), at distances of any shape."""
    r = np.sqrt(distance_px**2 + 1e-6) / p.radius_px
    return np.asarray(4 * p.order**2.5 * (jv(p.order, r) / r) ** 2, np.float64)


def photons(image: FloatArray, snr: float, rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """What a camera with one grey value per photoelectron sees of a `clean` image."""
    return rng.poisson(image * snr**2).astype(np.uint16)


def bound_px(p: Particle, snr: float) -> tuple[float, float]:
    """Least standard errors of x and y (px): the Cramer-Rao bound with radius, intensity and background unknown.

    The background is a level where the gradient is 0, else a plane. Pixels that are clipped tell nothing.
    """
    half = SIZE // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    image = clean(p)
    open_ = (image > 0) & (image < 1)
    step = 1e-3

    def off(**change: float) -> FloatArray:
        values = {name: getattr(p, name) for name in Particle.__slots__}
        more, less = ({k: v + s * change.get(k, 0.0) for k, v in values.items()} for s in (1, -1))
        sides = []
        for each in (more, less):
            q = Particle(**each)
            sides.append(q.intensity * shape(np.hypot(x - q.x_px, y - q.y_px), q))
        return np.asarray((sides[0] - sides[1]) / (2 * step), np.float64)

    slopes = [off(x_px=step), off(y_px=step), off(radius_px=step), off(intensity=step), np.ones_like(x)]
    if p.gradient:
        slopes += [x / half, y / half]
    rows = np.array([s[open_] for s in slopes])
    fisher = (rows * (snr**2 / image[open_])) @ rows.T
    covariance = np.linalg.inv(fisher)
    return float(np.sqrt(covariance[0, 0])), float(np.sqrt(covariance[1, 1]))
