"""Finds the method that solves a section: a closed form, a series, or finite elements."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tracking.physics.sections.profile import Profile, Wall
from tracking.physics.sections.rectangle import RectangleProfile
from tracking.physics.sections.round import EllipseProfile, PipeProfile
from tracking.physics.sections.shapes import Ellipse, Rectangle, Section

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NegativeSlip:
    """A slip length below 0, to first order: as much less than without slip as the opposite slip is more.

    No wall does that; but an estimate of a slip that is 0 has to be able to fall on either side.
    """

    none: Profile
    opposite: Profile

    @property
    def resistance(self) -> float:
        """G / (K U^m)."""
        return 2.0 * self.none.resistance - self.opposite.resistance

    def at(self, y_um: FloatArray, z_um: FloatArray) -> FloatArray:
        """F at points (N,); 0 outside."""
        return 2.0 * self.none.at(y_um, z_um) - self.opposite.at(y_um, z_um)

    def wall(self) -> Wall:
        """The shear at the wall."""
        none, opposite = self.none.wall(), self.opposite.wall()
        shear = 2.0 * none.shear_per_um - opposite.shear_per_um
        return Wall(none.y_um, none.z_um, none.length_um, shear)


@lru_cache(maxsize=64)
def profile_of(section: Section, slip_um: float = 0.0, index: float = 1.0) -> Profile:
    """The developed flow through a section, with a slip length or a flow index (above 0).

    Raises `ConfigurationError` as `element_profile` does.
    """
    if slip_um < 0:
        return NegativeSlip(profile_of(section, 0.0, index), profile_of(section, -slip_um, index))
    plain = slip_um == 0 and index == 1.0
    if isinstance(section, Rectangle) and index == 1.0:
        return RectangleProfile(section.width_um, section.depth_um, slip_um)
    if isinstance(section, Ellipse) and plain:
        return EllipseProfile(section.width_um, section.depth_um)
    round_one = isinstance(section, Ellipse) and section.width_um == section.depth_um
    if round_one and index > 0:
        return PipeProfile(section.width_um, slip_um, index)
    from tracking.physics.sections.finite_elements import element_profile  # scikit-fem takes 0.4 s to import

    return element_profile(section, slip_um, index)
