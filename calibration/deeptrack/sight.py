"""A microscope of a pipeline, drawn again and again with the properties that it has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calibration.deeptrack.following import FloatArray

RESTORED = ("output_region", "padding", "voxel_size")
"""What a microscope changes in its optics when it draws (DeepTrack 2.0.2), and would change again."""


@dataclass(slots=True, eq=False)
class Sight:
    """A microscope: what its optics were before it changed them, and how it counts places.

    `first_px` (2,) is the first row and column of its image, `z_step_um` the unit of its depths.
    """

    microscope: Any
    optics: dict[str, Any] = field(default_factory=dict)
    pixel_size_um: float | None = None
    z_step_um: float = 1.0
    first_px: FloatArray = field(default_factory=lambda: np.zeros(2))

    def begin_again(self) -> None:
        """Let it, and what comes after it, be evaluated anew with the properties that they have."""
        for name, value in self.optics.items():
            self.microscope._objective.properties[name].set_value(value)
        self.microscope.invalidate()

    def note_optics(self) -> None:
        """Note what it will change in its optics."""
        properties = self.microscope._objective.properties
        self.optics = {name: properties[name]() for name in RESTORED}

    def note_scales(self) -> FloatArray:
        """Note how it counts places, in the middle of its evaluation; returns the size (2,) of its pixels, um."""
        from deeptrack.backend.units import get_active_scale, get_active_voxel_size

        scale = np.asarray(get_active_scale(), float)
        voxel_um = 1e6 * np.asarray(get_active_voxel_size(), float) * scale
        region = np.asarray(self.microscope._objective.output_region(), float)[:2] / scale[:2]
        self.first_px = np.nan_to_num(region)
        self.pixel_size_um, self.z_step_um = float(voxel_um[0]), float(voxel_um[2])
        found: FloatArray = voxel_um[:2]
        return found
