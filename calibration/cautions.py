"""Warnings about a calibration as a whole: ambiguous depth, no focal lines, too coarse a step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from calibration.ambiguity import Ambiguity
from calibration.assemble import Assembled

AMBIGUOUS_PART = 0.3
"""Part of the depth range with a twin above which the user is warned. Lenses without astigmatism reach 0.5 to 1,
astigmatic ones stay near 0, so anything between 0.1 and 0.4 gives the same warning."""
COARSE = 0.9
"""Part of the depth range with a twin above which the user is warned. Around a single focal plane most depths
have a twin, so the value is not critical; depths at which two images happen to be alike are allowed."""
LEAST_SPAN = 2 / 3
"""Part of each side of the image over which particles must be spread. Ten at random places span 0.8 of it; a
surface of degree 2 that is continued by half its span is wrong by some of its standard errors."""


def warnings_for(
    made: Assembled, ambiguity: Ambiguity, step_um: float, particles: int = 0, used: int = 0
) -> list[str]:
    """One line for each: ambiguous depth, no focal lines, too coarse a step, particles that were not looked at.

    `particles` were found in the scan, of which `used` were aligned.
    """
    found = []
    if particles > used:
        found.append(
            f"the scan shows {particles} particles; the {used} farthest from the others are used, which is enough"
        )
    if ambiguity.part > AMBIGUOUS_PART:
        found.append(
            f"one image does not tell the depth: in {100 * ambiguity.part:.0f} % of the depth range a particle on "
            "one side of the focal plane looks like one on the other side; use a cylindrical lens"
        )
    elif not made.focal_planes.astigmatic:
        found.append(
            "no two focal lines were found (is the cylindrical lens in place?); only the "
            "defocus tells the depth"
        )
    alike = least_alike(made)
    if alike < COARSE:
        found.append(
            f"the step of {step_um:g} um is too coarse: images one step apart are correlated by only "
            f"{100 * alike:.0f} %; scan in smaller steps"
        )
    return found


def corner_warning(
    x_um: npt.NDArray[np.float64], y_um: npt.NDArray[np.float64], extent_um: tuple[float, float]
) -> list[str]:
    """A line where particles (N,) are in a part of the field only, which is `extent_um` (width, height) large."""
    low_x, high_x, low_y, high_y = x_um.min(), x_um.max(), y_um.min(), y_um.max()
    width, height = extent_um
    if high_x - low_x >= LEAST_SPAN * width and high_y - low_y >= LEAST_SPAN * height:
        return []
    return [
        f"particles used are at x {low_x:.0f} to {high_x:.0f}, y {low_y:.0f} to {high_y:.0f} um only, of a field "
        f"of {width:.0f} x {height:.0f} um: what changes over it is a guess beyond; scan particles all over it"
    ]


def least_alike(made: Assembled) -> float:
    """Smallest correlation between images of the PSF one step apart."""
    flat = made.images.reshape(len(made.images), -1)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return float(np.min((unit[1:] * unit[:-1]).sum(axis=1)))
