"""DeepTrack 1's test particles as pipelines of DeepTrack 2, to train on: the same images, any of four kinds.

    liveptv train --images benchmarks/low_light_pipeline.py:bright_spots --learn radius_px -o bright_spots.onnx

The particle and the camera are those of (1) in `low_light_scene`; radius, intensity, background, gradient (0 to 1)
and signal-to-noise ratio (3 to 100, evenly over its logarithm) are drawn anew for each image.
"""

# ruff: noqa: NPY002  # DeepTrack draws with the global random numbers
from typing import Any

import deeptrack as dt
import numpy as np
from deeptrack.optical.scatterers import FieldScatterer
from scipy.special import jv

pixel_size_um = 0.1
normalise = "background"
SIZE = 51
HALF = SIZE // 2


class BesselParticle(FieldScatterer):
    """A squared Bessel function where the particle is."""

    def get(self, *_: Any, position: Any, radius_px: float, order: int, intensity: float, **__: Any) -> Any:
        """What it adds to the light (H, W, 1)."""
        rows, columns = np.mgrid[:SIZE, :SIZE]
        r = np.sqrt((rows - position[0]) ** 2 + (columns - position[1]) ** 2 + 1e-6) / radius_px
        return (intensity * 4 * order**2.5 * (jv(order, r) / r) ** 2)[..., None]


class Direct(dt.optics.Optics):
    """Optics that show what the particles give."""

    def get(self, volume: Any, limits: Any, fields: Any, **_: Any) -> Any:
        """The sum of the particles' images."""
        return sum(np.asarray(field.array) for field in fields)


def camera(level: float, gradient: float, angle: float, snr: float) -> Any:
    """Background, clipping and shot noise, in photoelectrons."""

    def see(image: Any) -> Any:
        rows, columns = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1]
        ground = level + gradient * (rows * np.sin(angle) + columns * np.cos(angle)) / (np.sqrt(2) * SIZE)
        return np.random.poisson(np.clip(np.asarray(image) + ground[..., None], 0, 1) * snr**2).astype(float)

    return see


def pipeline_of(order: int, sign: int) -> Any:
    """Spots (order 1) or rings (2), bright (sign 1) or dark (-1)."""
    particle = BesselParticle(
        position=lambda: np.random.normal((HALF, HALF), 1.0),
        radius_px=lambda: np.random.uniform(1.5, 3.0),
        order=order,
        intensity=lambda: sign * np.random.uniform(0.2, 0.6),
    )
    optics = Direct(
        output_region=(0, 0, SIZE, SIZE), resolution=1e-7, magnification=1, NA=0.7, wavelength=5e-7
    )
    seen = dt.Lambda(
        camera,
        level=lambda: np.random.uniform(0.2, 0.8),
        gradient=lambda: np.random.uniform(0, 1),
        angle=lambda: np.random.uniform(-np.pi, np.pi),
        snr=lambda: np.exp(np.random.uniform(np.log(3), np.log(100))),
    )
    return optics(particle) >> seen


bright_spots = pipeline_of(1, 1)
dark_spots = pipeline_of(1, -1)
bright_rings = pipeline_of(2, 1)
dark_rings = pipeline_of(2, -1)
