"""What a calibration's user must know before relying on it."""

from __future__ import annotations

import numpy as np

from calibration.ambiguity import Ambiguity
from calibration.assemble import Assembled

AMBIGUOUS_PART = 0.3
COARSE = 0.9


def warnings_for(
    made: Assembled, ambiguity: Ambiguity, step_um: float, particles: int = 0, used: int = 0
) -> list[str]:
    """One line for each: depth that one image does not tell, no focal lines, too coarse a step, particles left out.

    `particles` were found in the scan, of which `used` were looked at.
    """
    found = []
    if particles > used:
        found.append(
            f"of {particles} particles in the scan the {used} farthest from the others were looked at, which is "
            "enough; the others are left out"
        )
    if ambiguity.part > AMBIGUOUS_PART:
        found.append(
            f"one image does not tell the depth: in {100 * ambiguity.part:.0f} % of the depth range a particle on "
            "one side of the focus looks like one on the other; use a cylindrical lens"
        )
    elif not made.focal_planes.astigmatic:
        found.append(
            "no two focal lines were found (is the cylindrical lens in?); only the defocus tells the depth"
        )
    alike = least_alike(made)
    if alike < COARSE:
        found.append(
            f"the step of {step_um:g} um is too coarse: images one step apart agree to only {100 * alike:.0f} %; "
            "scan in smaller steps"
        )
    return found


def least_alike(made: Assembled) -> float:
    """Smallest correlation between average images one step apart."""
    flat = made.images.reshape(len(made.images), -1)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return float(np.min((unit[1:] * unit[:-1]).sum(axis=1)))
