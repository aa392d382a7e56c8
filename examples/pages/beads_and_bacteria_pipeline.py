"""DeepTrack pipelines: fluorescent beads and rod-shaped bacteria in a thin chamber, with the noise of photons."""
# ruff: noqa: NPY002  DeepTrack draws from the global generator

from __future__ import annotations

from collections.abc import Callable

import deeptrack as dt
import numpy as np

PIXEL_UM, BORDER_PX = 0.2, 6
PHOTONS, BACKGROUND = 60.0, 0.3


def anywhere(side: int) -> dict[str, object]:
    """Also a little outside of the image, whose edges cut objects."""
    return {
        "position": lambda: np.random.uniform(-BORDER_PX, side + BORDER_PX, 2),
        "intensity": lambda: np.random.uniform(0.8, 1.2),
    }


def photons(image: np.ndarray) -> np.ndarray:
    """What a camera counts: the objects over a weak background."""
    return np.random.poisson(PHOTONS * (np.clip(image, 0, None) + BACKGROUND)).astype(float)


def seen(side: int, count: Callable[[], int]) -> dt.Feature:
    """Images (side, side) of so many objects of each kind."""
    bead = dt.Sphere(radius=0.5e-6, name="bead", **anywhere(side))
    bacterium = dt.Ellipsoid(
        radius=(1.4e-6, 0.4e-6, 0.4e-6),
        rotation=lambda: np.random.uniform(0, np.pi),
        name="bacterium",
        **anywhere(side),
    )
    microscope = dt.Fluorescence(
        NA=0.7,
        wavelength=0.52e-6,
        resolution=PIXEL_UM * 1e-6,
        magnification=1,
        refractive_index_medium=1.33,
        output_region=(0, 0, side, side),
    )
    return microscope((bead ^ count) & (bacterium ^ count)) >> dt.Lambda(lambda: photons)


training = seen(side=64, count=lambda: np.random.randint(0, 4))
camera = seen(side=192, count=lambda: 4)
