"""DeepTrack pipelines: fluorescent cells of many sizes and shapes, lying at random, with the noise of photons."""
# ruff: noqa: NPY002  DeepTrack draws from the global generator

from __future__ import annotations

from collections.abc import Callable

import deeptrack as dt
import numpy as np

PIXEL_UM, BORDER_PX = 1.0, 4
PHOTONS, BACKGROUND = 8.0, 1.0


def photons(image: np.ndarray) -> np.ndarray:
    """What a camera counts: the cells over a weak background."""
    return np.random.poisson(PHOTONS * (np.clip(image, 0, None) + BACKGROUND)).astype(float)


def seen(side: int, count: Callable[[], int]) -> dt.Feature:
    """Images (side, side) of so many cells."""
    cell = dt.Ellipsoid(
        position=lambda: np.random.uniform(-BORDER_PX, side + BORDER_PX, 2),
        radius=lambda: np.random.uniform(3e-6, 6e-6, 3),
        rotation=lambda: np.random.uniform(0, np.pi, 3),
        intensity=lambda: np.random.uniform(0.7, 1.3),
        name="cell",
    )
    microscope = dt.Fluorescence(
        NA=0.4,
        wavelength=0.52e-6,
        resolution=PIXEL_UM * 1e-6,
        magnification=1,
        output_region=(0, 0, side, side),
    )
    return microscope(cell ^ count) >> dt.Lambda(lambda: photons)


training = seen(side=64, count=lambda: np.random.randint(0, 8))
camera = seen(side=192, count=lambda: 25)
