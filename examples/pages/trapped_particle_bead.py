"""A DeepTrack pipeline: one dim fluorescent bead of 0.5 um, seen with NA 1.1; images are a camera's grey values."""
# ruff: noqa: NPY002  DeepTrack draws from the global generator

from __future__ import annotations

from typing import Any

import deeptrack as dt
import numpy as np
from deeptrack.optical.noises import Noise

SIDE, PIXEL_UM, RADIUS_UM = 48, 0.1, 0.25
OFFSET, BACKGROUND, READ_NOISE = 100.0, 2.0, 1.5
"""Of the camera: grey values, photoelectrons a pixel, photoelectrons rms; a photoelectron is a grey value."""

bead = dt.Sphere(
    position=lambda: np.random.uniform(SIDE / 2 - 4, SIDE / 2 + 4, 2),
    z=0.0,
    radius=RADIUS_UM * 1e-6,
    intensity=lambda: np.random.uniform(14.0, 22.0),  # 120 to 190 photoelectrons in all
)
microscope = dt.Fluorescence(
    NA=1.1,
    wavelength=0.6e-6,
    resolution=PIXEL_UM * 1e-6,
    magnification=1,
    refractive_index_medium=1.33,
    output_region=(0, 0, SIDE, SIDE),
    padding=(8, 8, 8, 8),
)
light = microscope(bead)


class CameraNoise(Noise):
    """Shot noise and read noise, photoelectrons. As a `Noise` of DeepTrack's it can be left out of images."""

    def get(self, image: Any, **_: Any) -> Any:
        """The image as the camera reads it."""
        return np.random.poisson(np.clip(image, 0, None)) + np.random.normal(0.0, READ_NOISE, np.shape(image))


pipeline = light >> dt.Add(BACKGROUND) >> CameraNoise() >> dt.Add(OFFSET)
