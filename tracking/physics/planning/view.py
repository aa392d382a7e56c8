"""What a planned experiment sees: particles, image, depths, localisation errors and rate; and its slices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.errors import ConfigurationError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Localisation:
    """Standard errors of x, y and z, um, (3, Z), at depths z off the focus, um, (Z,), ascending.

    Their ends are the depths that are measured at all; in between they are interpolated.
    """

    z_um: FloatArray
    sigma_um: FloatArray

    def __post_init__(self) -> None:
        fits = self.sigma_um.shape == (3, self.z_um.size) and self.z_um.size >= 2
        if not (fits and (np.diff(self.z_um) > 0).all() and (self.sigma_um > 0).all()):
            raise ConfigurationError(
                "localisation errors are given at two or more depths in ascending order, each above 0"
            )

    def at(self, z_um: FloatArray) -> FloatArray:
        """The errors (3, N) at depths (N,)."""
        return np.stack([np.interp(z_um, self.z_um, row) for row in self.sigma_um])

    def scaled(self, factors: tuple[float, float, float]) -> Localisation:
        """With the errors along each axis multiplied by a factor."""
        return Localisation(self.z_um, self.sigma_um * np.array(factors)[:, None])


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Microscope and sample of a planned experiment; the flow is along x.

    `image_um` is the size of the image along x and y, `middle_y_um` the y of its middle less that of the channel's.
    `depth_factor` is the height in the sample per travel of the focus drive. `found` is the probability that a
    particle in view is detected in a frame. Tracks of fewer than `min_length` detections do not count.
    """

    image_um: tuple[float, float]
    middle_y_um: float
    frame_rate_hz: float
    localisation: Localisation
    particles_per_um3: float
    diffusion_um2_s: float
    depth_factor: float = 1.0
    found: float = 1.0
    min_length: int = 5

    def heights_um(self, focus_um: float) -> tuple[float, float]:
        """The lowest and the highest height that is measured at a focus position."""
        z = self.localisation.z_um
        return self.depth_factor * (focus_um + float(z[0])), self.depth_factor * (focus_um + float(z[-1]))


@dataclass(frozen=True, slots=True)
class Slices:
    """Focus positions, um, and how many frames are taken at each."""

    focus_um: tuple[float, ...]
    frames: tuple[float, ...]

    @property
    def total_frames(self) -> float:
        """Frames of all slices."""
        return math.fsum(self.frames)

    def times(self, factor: float) -> Slices:
        """With so many times as many frames in each slice."""
        return Slices(self.focus_um, tuple(factor * n for n in self.frames))
