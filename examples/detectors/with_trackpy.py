"""A detector of your own: trackpy's `locate` (pip install trackpy). In the experiment file:

[detector]
file = "examples/detectors/with_trackpy.py"
options = { diameter_px = 11, minmass = 200.0, invert = true }
"""

import numpy as np
import trackpy

trackpy.quiet()


class Trackpy:
    """Crocker and Grier's method: maxima of the band-passed image, refined to their centroids. 2D."""

    def __init__(self, diameter_px: int = 11, minmass: float = 100.0, invert: bool = False) -> None:
        self.diameter_px, self.minmass, self.invert = diameter_px, minmass, invert

    def warmup(self, height: int, width: int, dtype: np.dtype) -> None:
        self.find(np.random.default_rng(0).integers(0, 99, (height, width)).astype(dtype), None)

    def find(self, image: np.ndarray, info) -> dict:
        found = trackpy.locate(
            image, self.diameter_px, minmass=self.minmass, invert=self.invert, engine="numba"
        )
        return {"x_px": found.x, "y_px": found.y, "brightness": found.signal}
