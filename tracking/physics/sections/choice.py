"""Finds the method that solves a section: a closed form, a series, or finite elements."""

from __future__ import annotations

from functools import lru_cache

from tracking.physics.sections.profile import Profile
from tracking.physics.sections.rectangle import RectangleProfile
from tracking.physics.sections.round import EllipseProfile, PipeProfile
from tracking.physics.sections.shapes import Ellipse, Rectangle, Section


@lru_cache(maxsize=64)
def profile_of(section: Section, slip_um: float = 0.0, index: float = 1.0) -> Profile:
    """The developed flow through a section, with a slip length (0 or more) or a flow index (above 0).

    Raises `ConfigurationError` as `element_profile` does.
    """
    plain = slip_um == 0 and index == 1.0
    if isinstance(section, Rectangle) and index == 1.0 and slip_um >= 0:
        return RectangleProfile(section.width_um, section.depth_um, slip_um)
    if isinstance(section, Ellipse) and plain:
        return EllipseProfile(section.width_um, section.depth_um)
    round_one = isinstance(section, Ellipse) and section.width_um == section.depth_um
    if round_one and slip_um >= 0 and index > 0 and (slip_um == 0 or index == 1.0):
        return PipeProfile(section.width_um, slip_um, index)
    from tracking.physics.sections.finite_elements import element_profile  # scikit-fem takes 0.4 s to import

    return element_profile(section, slip_um, index)
