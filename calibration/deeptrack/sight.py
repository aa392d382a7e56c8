"""A microscope of a pipeline, drawn again and again with the properties that it has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from calibration.deeptrack.following import FloatArray

RESTORED = ("output_region", "padding", "voxel_size")
"""What a microscope changes in its optics when it draws (DeepTrack 2.0.2), and would change again."""


class Scale(NamedTuple):
    """How a microscope counts places: the first row and column (2,) of its image, the size (2,) of its pixels along
    rows and columns, and the unit of its depths."""

    first_px: FloatArray
    pixels_um: tuple[float, float]
    z_step_um: float

    @classmethod
    def of(cls, microscope: Any) -> Scale:
        """That of a microscope in the middle of its evaluation, as DeepTrack says it then only, in some ms."""
        from deeptrack.backend.units import get_active_scale, get_active_voxel_size

        scale = np.asarray(get_active_scale(), float)
        down, across, deep = (
            float(each) for each in 1e6 * np.asarray(get_active_voxel_size(), float) * scale
        )
        region = np.asarray(microscope._objective.output_region(), float)[:2] / scale[:2]
        return cls(np.nan_to_num(region), (down, across), deep)


@dataclass(slots=True, eq=False)
class Sight:
    """A microscope: what its optics were before it changed them, and how it counts places, once it is evaluated."""

    microscope: Any
    optics: dict[str, Any] = field(default_factory=dict)
    scale: Scale | None = None

    def begin_again(self) -> None:
        """Let it, and what comes after it, be evaluated anew with the properties that they have."""
        for name, value in self.optics.items():
            self.microscope._objective.properties[name].set_value(value)
        self.microscope.invalidate()

    def note_optics(self) -> None:
        """Note what it will change in its optics."""
        properties = self.microscope._objective.properties
        self.optics = {name: properties[name]() for name in RESTORED}
