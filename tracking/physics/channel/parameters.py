"""The parameters of the flow in a straight channel, and what is known of them beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.errors import ConfigurationError
from tracking.physics.sections.shapes import Ellipse, Section

FloatArray = npt.NDArray[np.float64]

PARAMETERS = (
    "velocity_um_s", "width_um", "depth_um", "center_y_um", "floor_um",
    "yaw_deg", "pitch_deg", "roll_deg", "slip_um", "flow_index",
)  # fmt: skip
VELOCITY, WIDTH, DEPTH, CENTER, FLOOR, YAW, PITCH, ROLL, SLIP, INDEX = range(len(PARAMETERS))
"""Mean velocity over the section; size of its bounding box; y of its middle and height of its bottom, where the
channel crosses `reference_x_um`; the channel's direction in the image (yaw, from x to y) and out of the focal plane
(pitch, from x to the height), and the section's turn about that (roll, from y to the height); slip length; flow
index of a power-law liquid, 1 for a Newtonian one."""


@dataclass(frozen=True)
class Known:
    """What is known of a parameter beforehand: its value, and the standard error of that.

    0: it is fixed. Infinite: nothing is known, and `value` is where the fit begins.
    """

    value: float
    sigma: float = 0.0


UNKNOWN = math.inf
FREE = ("velocity_um_s", "center_y_um", "floor_um", "yaw_deg", "pitch_deg", "roll_deg")
"""What is fitted if nothing else is said: the section is as it was made; where it is, is not known."""

LEVEL_DEG = 5.0
"""A channel lies in the focal plane to within this (standard error) if nothing else is said. It matters only where
the tracks say nothing. A round pipe has no roll: turned about its bottom it is a pipe elsewhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Values (10,) and standard errors (10,) of all parameters, in the order of `PARAMETERS`."""

    value: FloatArray
    sigma: FloatArray

    @property
    def free(self) -> npt.NDArray[np.int64]:
        """Indices of those that are fitted."""
        return np.flatnonzero(self.sigma > 0)


def prior_of(section: Section, known: Mapping[str, Known] | None = None) -> Prior:
    """Complete what is known: the section's size, a Newtonian liquid without slip; `FREE` unknown but for
    `LEVEL_DEG` and the roll of a round section, which is 0.

    NaN as the value of an unknown center, floor, yaw or velocity: the fit finds where to begin. Raises
    `ConfigurationError` for a parameter that does not exist or a standard error below 0.
    """
    given = dict(known or {})
    strange = sorted(set(given) - set(PARAMETERS))
    if strange:
        raise ConfigurationError(f"a channel has no parameter {strange[0]}; it has {', '.join(PARAMETERS)}")
    if isinstance(section, Ellipse) and section.width_um == section.depth_um and not _is_fitted(given):
        given.setdefault("roll_deg", Known(0.0))
    for name in FREE:
        level = Known(0.0, LEVEL_DEG) if name in ("pitch_deg", "roll_deg") else Known(math.nan, UNKNOWN)
        given.setdefault(name, level)
    fixed = {"width_um": section.width_um, "depth_um": section.depth_um, "slip_um": 0.0, "flow_index": 1.0}
    for name, value in fixed.items():
        given.setdefault(name, Known(value))
    for name, one in given.items():
        if not one.sigma >= 0 or (math.isnan(one.value) and one.sigma < math.inf):
            raise ConfigurationError(
                f"{name} is given as {one.value:g} with the standard error {one.sigma:g}; "
                "give a number, and 0 (fixed) or more"
            )
    return Prior(
        np.array([given[name].value for name in PARAMETERS], np.float64),
        np.array([given[name].sigma for name in PARAMETERS], np.float64),
    )


def _is_fitted(given: Mapping[str, Known]) -> bool:
    return any(name in given and given[name].sigma > 0 for name in ("width_um", "depth_um"))
