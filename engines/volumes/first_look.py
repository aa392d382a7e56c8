"""What the first volume says about the particles where nobody has: polarity, size and shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.volumes.blurred_ball import BALL_VARIANCE
from engines.volumes.polarity import inverted
from engines.volumes.psf import VolumePsf
from engines.volumes.spot_shape import shape_of
from engines.volumes.spot_size import estimate_spot_size, first_size

BoolArray = npt.NDArray[np.bool_]
Triple = tuple[float, float, float]

DARKER = 1.1
"""How much deeper dark spots must be than bright ones are high to be the particles: gaps between bright ones are
dark too, but not as round. Of balls that touch they answer 0.7 times as much, and as much where the PSF is as large
as they are and they fill half the volume."""


@dataclass(frozen=True, slots=True)
class FirstLook:
    """The particles: their image `psf`, standard deviations `sigma_um` (z, y, x), and the part of a ball in it
    (`roundness`, see `blurred_ball`); from how many `spots`, 0 where the size was given; whether they are
    `dark`."""

    psf: VolumePsf
    sigma_um: Triple
    roundness: float
    spots: int
    dark: bool

    @property
    def radius_um(self) -> float:
        """Radius of the balls, um; 0 for Gaussians."""
        return math.sqrt(BALL_VARIANCE * self.roundness) * min(self.sigma_um)

    def in_words(self) -> str:
        """A line for the user."""
        x, y, z = (f"{s:.3g}" for s in reversed(self.sigma_um))
        what = (
            f"balls of {self.radius_um:.2g} um radius behind the PSF, in all"
            if self.roundness
            else "Gaussians of"
        )
        if not self.spots:
            return f"the particles are taken as {what} {x}, {y} and {z} um (standard deviation along x, y, z)"
        return (
            f"the spots are taken as {what} {x}, {y} and {z} um (standard deviation along x, y, z) from "
            f"{self.spots} of them; if that is wrong, give detector.spot_um = [{x}, {y}, {z}], or calibrate"
        )


def look(
    image: npt.NDArray[Any],
    missing: BoolArray,
    voxel_um: Triple,
    sigma_voxels: Triple | None,
    dark: bool | None,
) -> FirstLook | None:
    """Look at a volume (Z, H, W); None where it shows too few particles.

    `sigma_voxels` (z, y, x) and `dark` are kept where they are given; `missing` (Z,) slices are not used.
    """
    if bool(missing.all()) or min(image.shape[1:]) < 5:
        return None
    if dark is None:
        dark = _is_dark(image, missing, sigma_voxels)
    turned = inverted(image) if dark else image
    spots = 0
    if sigma_voxels is None:
        found = estimate_spot_size(turned, missing, even_noise=dark)
        if found is None:
            return None
        sigma_voxels, spots = found
    shape = shape_of(turned, missing, sigma_voxels, voxel_um, even_noise=dark, fixed=spots == 0)
    return FirstLook(shape.psf, shape.sigma_um, shape.roundness, spots, dark)


def _is_dark(image: npt.NDArray[Any], missing: BoolArray, sigma_voxels: Triple | None) -> bool:
    """Whether dark spots are surely deeper than bright ones are high."""
    # around a bright spot the filter's answer is dark: one is enough not to take that for particles
    bright = first_size(image, missing, sigma_voxels, fewest=1)[1]
    dark = first_size(inverted(image), missing, sigma_voxels, even_noise=True)[1]
    return dark > DARKER * bright
