"""Other objects and cameras than those of DeepTrack 1's test: a fluorescent bead, a sphere in brightfield.

    liveptv train --images benchmarks/low_light_others_pipeline.py:bead -o bead.h5

The camera has an offset, a gain and read noise. `seen` draws one of these objects without noise, for tests.
"""

# ruff: noqa: NPY002  # DeepTrack draws with the global random numbers
from __future__ import annotations

from typing import Any

import deeptrack as dt
import numpy as np
from deeptrack.optical.noises import Noise

pixel_size_um = 0.1
SIZE = 51
HALF = SIZE // 2
OFFSET, GAIN, READ_GREY = 100.0, 2.0, 4.0
"""Of the camera: grey values, grey values a photoelectron, grey values rms."""
BEAD_BACKGROUND, SPHERE_BACKGROUND = 3.0, 150.0
"""Photoelectrons a pixel where no object is."""
BEAD_RADIUS_M, SPHERE_RADIUS_M = (0.15e-6, 0.5e-6), (0.3e-6, 0.7e-6)
BEAD_INTENSITY = (20.0, 40.0)
"""Of a voxel of 0.1 um: 27 photoelectrons in all from the smallest and dimmest bead, 1,430 from the largest."""
SPHERE_Z_PX = 15.0
"""1.5 um above the focus."""
OPTICS: dict[str, Any] = {
    "wavelength": 0.6e-6,
    "resolution": 1e-7,
    "magnification": 1,
    "refractive_index_medium": 1.33,
    "output_region": (0, 0, SIZE, SIZE),
    "padding": (16, 16, 16, 16),
}


class CameraNoise(Noise):
    """Shot noise, and read noise in photoelectrons."""

    def get(self, image: Any, **_: Any) -> Any:
        """The image as the camera reads it, photoelectrons."""
        seen = np.random.poisson(np.clip(np.real(image), 0, None))
        return seen + np.random.normal(0.0, READ_GREY / GAIN, np.shape(image))


def _place() -> Any:
    return np.random.normal((HALF, HALF), 1.0)


_bead = dt.Sphere(
    position=_place,
    z=0.0,
    radius=lambda: np.random.uniform(*BEAD_RADIUS_M),
    intensity=lambda: np.random.uniform(*BEAD_INTENSITY),
)
_sphere = dt.Sphere(
    position=_place,
    z=SPHERE_Z_PX,
    radius=lambda: np.random.uniform(*SPHERE_RADIUS_M),
    refractive_index=1.37,
)
_lights = {
    "bead": (_bead, dt.Fluorescence(NA=0.9, **OPTICS)(_bead) >> dt.Add(BEAD_BACKGROUND)),
    "sphere": (_sphere, dt.Brightfield(NA=0.9, **OPTICS)(_sphere) >> dt.Multiply(SPHERE_BACKGROUND)),
}
bead, sphere = (
    light >> CameraNoise() >> dt.Multiply(GAIN) >> dt.Add(OFFSET) for _, light in _lights.values()
)


def seen(kind: str, x_px: float, y_px: float, radius_m: float, intensity: float) -> Any:
    """Photoelectrons (H, W) without noise of an object at a place in the image; `intensity` of a bead only."""
    scatterer, light = _lights[kind]
    scatterer.position.set_value(np.array([y_px, x_px]))
    scatterer.radius.set_value(radius_m)
    if kind == "bead":
        scatterer.intensity.set_value(intensity)
    return np.real(np.asarray(light(), np.complex128)).reshape(SIZE, SIZE)
