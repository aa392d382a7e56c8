"""Spheres in in-line holograms: place, radius and refractive index by matched filtering and a fit of Mie's theory.

    [detector]
    file = "holograms.py"
    options = { numerical_aperture = 1.2, wavelength_um = 0.633, medium_index = 1.33, photons = 10000 }

`photons` are those of the background in one pixel. Spheres up to 2 um outside of
the image are found and fitted too, as they disturb those near the edge, and left out of the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from acquisition.physics.hologram import HologramOptics, hologram_model
from calibration.holograms.fit import INDEX, RADIUS, X, Y, Z
from calibration.holograms.search import SphereSearch


class Holograms:
    def __init__(
        self,
        numerical_aperture: float = 1.2,
        wavelength_um: float = 0.633,
        medium_index: float = 1.33,
        photons: float = 10_000.0,
        pixel_fill: float = 1.0,
        min_z_um: float = 2.0,
        max_z_um: float = 6.0,
        reach_um: float = 6.4,
        typical_radius_um: float = 0.2,
        typical_index: float = 1.58,
        least_of_surest: float = 0.04,
    ) -> None:
        self._optics = {
            "numerical_aperture": numerical_aperture,
            "wavelength_um": wavelength_um,
            "medium_index": medium_index,
            "pixel_fill": pixel_fill,
        }
        self._sought = {
            "depth_um": (min_z_um, max_z_um),
            "typical_radius_um": typical_radius_um,
            "typical_index": typical_index,
            "noise": photons**-0.5,
            "least_of_surest": least_of_surest,
        }
        self._reach_um = reach_um
        self._search: SphereSearch | None = None

    def find(self, image: npt.NDArray[Any], info: Any) -> dict[str, Any]:
        if self._search is None or self._search.model.optics.pixel_size_um != info.pixel_size_um:
            optics = HologramOptics(pixel_size_um=info.pixel_size_um, **self._optics)
            deepest_um = 1.5 * max(map(abs, self._sought["depth_um"]))
            self._search = SphereSearch(hologram_model(optics, self._reach_um, deepest_um), **self._sought)
        found = self._search.find(image / np.median(image))
        height, width = image.shape
        x, y = found.spheres[:, X], found.spheres[:, Y]
        inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5) & found.ended
        spheres, errors = found.spheres[inside], found.errors[inside]
        return {
            "x_px": spheres[:, X],
            "y_px": spheres[:, Y],
            "z_um": spheres[:, Z],
            "sigma_x_px": errors[:, X],
            "sigma_y_px": errors[:, Y],
            "sigma_z_um": errors[:, Z],
            "confidence": np.ones(len(spheres)),
            "properties": {
                "radius_um": (spheres[:, RADIUS], errors[:, RADIUS]),
                "refractive_index": (spheres[:, INDEX], errors[:, INDEX]),
            },
        }
