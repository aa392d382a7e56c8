"""A DeepTrack pipeline: quantum dots on uneven background light, as in a cell; images are grey values."""
# ruff: noqa: NPY002  DeepTrack draws from the global generator

from __future__ import annotations

from typing import Any

import deeptrack as dt
import numpy as np
from deeptrack.optical.noises import Noise

PIXEL_UM, OFFSET, READ_NOISE = 0.1, 100.0, 1.5
"""um, grey values, photoelectrons rms; a photoelectron is a grey value."""
FAINT, BRIGHT = 4.0, 60.0
"""Background at its darkest and brightest place, photoelectrons a pixel."""


class CameraNoise(Noise):
    """Shot noise and read noise, photoelectrons. As a `Noise` of DeepTrack's it can be left out of images."""

    def get(self, image: Any, **_: Any) -> Any:
        """The image as the camera reads it."""
        return np.random.poisson(np.clip(image, 0, None)) + np.random.normal(0.0, READ_NOISE, np.shape(image))


def glow(side: int, row: float, column: float, width: float) -> Any:
    """Light that falls off around a place, as that of a cell."""
    rows, columns = np.mgrid[:side, :side]
    far = ((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2)
    background = FAINT + (BRIGHT - FAINT) * np.exp(-far)
    return lambda image: np.asarray(image) + background[..., None]


def view(side: int, dots: int) -> dt.Feature:
    """Images of `side` pixels with so many dots."""
    dot = dt.PointParticle(
        position=lambda: np.random.uniform(0, side, 2),
        z=0.0,
        intensity=lambda: np.random.uniform(1500, 2500),  # 180 to 310 photoelectrons in all
    )
    microscope = dt.Fluorescence(
        NA=1.3,
        wavelength=0.65e-6,
        resolution=PIXEL_UM * 1e-6,
        magnification=1,
        refractive_index_medium=1.4,
        output_region=(0, 0, side, side),
        padding=(8, 8, 8, 8),
    )
    light = dt.Lambda(
        glow,
        side=side,
        row=lambda: np.random.uniform(0.3, 0.7) * side,
        column=lambda: np.random.uniform(0.3, 0.7) * side,
        width=30.0,
    )
    return microscope(dot ^ dots) >> light >> CameraNoise() >> dt.Add(OFFSET)


pipeline = view(128, 12)
to_learn = view(48, 2)
"""The same dots in smaller images, which are drawn sooner."""
