"""A DeepTrack pipeline: in-line holograms of polystyrene-like spheres in water, red laser, NA 1.2.

DeepTrack 2.0.2 is told two things about its Mie spheres, without which their images are not those of a microscope
(docs/holograms.md): `amp_factor` gives the wave of mode "hybrid" its scale and its sign (a sphere takes light from
the wave that passes), `pupil` the obliquity 1 / cos t of waves at an angle t.
"""
# ruff: noqa: NPY002  DeepTrack draws from the global generator

from __future__ import annotations

import deeptrack as dt
import numpy as np

SIDE, PADDING = 160, 48
NA, WAVELENGTH_UM, MEDIUM_INDEX, PIXEL_UM = 1.2, 0.633, 1.33, 0.1
MOST, BORDER = 7, 24
DEPTH_UM, RADIUS_UM, INDEX = (2.0, 6.0), (0.10, 0.30), (1.45, 1.70)
PHOTONS = 10_000

WAVENUMBER = 2 * np.pi * MEDIUM_INDEX / WAVELENGTH_UM


def obliquity() -> np.ndarray:
    points = SIDE + 2 * PADDING
    across = (np.arange(points) - points / 2) * 2 * np.pi / (points * PIXEL_UM)
    sine2 = (across[:, None] ** 2 + across**2) / WAVENUMBER**2
    return 1 / np.sqrt(1 - np.minimum(sine2, 0.99))


PLACE = {
    "position": lambda: np.random.uniform(-BORDER, SIDE + BORDER, 2),
    "z": lambda: np.random.uniform(*DEPTH_UM) / PIXEL_UM,
}
AS_IN_A_MICROSCOPE = {
    "mode": "hybrid",
    "amp_factor": -((WAVENUMBER * PIXEL_UM) ** 2) / (2 * np.pi),
    "pupil": obliquity(),
}
microscope = dt.Brightfield(
    NA=NA,
    wavelength=WAVELENGTH_UM * 1e-6,
    resolution=PIXEL_UM * 1e-6,
    magnification=1,
    refractive_index_medium=MEDIUM_INDEX,
    output_region=(0, 0, SIDE, SIDE),
    padding=(PADDING,) * 4,
)


def some(sphere: dt.Feature) -> dt.Feature:
    """Images of up to `MOST` such spheres, with the noise of photons."""
    return microscope(sphere ^ (lambda: np.random.randint(1, MOST + 1))) >> dt.Gaussian(
        sigma=lambda: np.random.uniform(0.8, 1.2) / np.sqrt(PHOTONS)
    )


# to train on: any size and index
pipeline = some(
    dt.MieSphere(
        radius=lambda: np.random.uniform(*RADIUS_UM) * 1e-6,
        refractive_index=lambda: np.random.uniform(*INDEX),
        **PLACE,
        **AS_IN_A_MICROSCOPE,
    )
)
# the sample: polystyrene spheres of two sizes
two_sizes = some(
    dt.MieSphere(
        radius=lambda: np.random.choice([0.15, 0.23]) * 1e-6,
        refractive_index=1.58,
        **PLACE,
        **AS_IN_A_MICROSCOPE,
    )
)
