"""The simulated camera behind a laser-lit objective: in-line holograms of spheres."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from acquisition.physics.hologram import HologramModel, HologramOptics
from acquisition.simulated.world import Particles
from acquisition.simulated.world_camera import SceneSight, WorldCamera, changed
from stream.errors import ConfigurationError

FloatArray = npt.NDArray[np.float64]

_OPTICS_PROPERTIES = {
    "NumericalAperture": "numerical_aperture",
    "Wavelength_um": "wavelength_um",
    "MediumIndex": "medium_index",
    "PixelSize_um": "pixel_size_um",
}
_BACKGROUND = 0.25
"""Of full scale: where the waves of a sphere and the light add up, images are up to four times as bright."""


class HologramCamera(WorldCamera):
    """Holograms of spheres of one or a few sizes; docs/simulated-microscope.md lists its properties."""

    SCENE: ClassVar = {
        "Width": "width_px",
        "Height": "height_px",
        "ChannelWidth_um": "channel_width_um",
        "ChannelDepth_um": "channel_depth_um",
        "ParticlesPerFrame": "particles_per_frame",
        "VisibleDepth_um": "visible_um",
        "Seed": "seed",
    }
    PIXEL_TYPE = "16bit"

    def _register_optics(self) -> None:
        self.optics = HologramOptics()
        self.scene = changed(self.scene, width_px=128, height_px=128, visible_um=10.0, channel_depth_um=10.0)
        self._radii, self._index, self._reach_um, self._photons = "0.25", 1.58, 5.0, 1e4
        self._spheres: Spheres | None = None
        for name, field in _OPTICS_PROPERTIES.items():
            self.add(name, float, *self._optical(field), pre_init=True)
        self.add("Radius_um", str, *self._access("_radii"), pre_init=True)
        self.add("ParticleIndex", float, *self._access("_index"), limits=(1, 4), pre_init=True)
        self.add("Reach_um", float, *self._access("_reach_um"), limits=(0.1, 1000), pre_init=True)
        self.add("Photons", float, *self._access("_photons"), limits=(1, 1e9), pre_init=True)

    def _optical(self, field: str) -> tuple[Any, Any]:
        def write(value: float) -> None:
            try:
                self.optics = replace(self.optics, **{field: value})
            except ValueError as error:
                raise ConfigurationError(
                    f"the simulated camera cannot have {field} = {value:g}: {error}"
                ) from None

        return lambda: getattr(self.optics, field), write

    def _sight(self) -> SceneSight:
        return SceneSight(self.optics.pixel_size_um, self.scene.visible_um)

    def _describe(self, particles: Particles) -> dict[str, FloatArray]:
        return {} if self._spheres is None else {"radius_um": self._spheres.radii_um(particles)}

    def _prepare(self) -> DrawnAsHolograms:
        self._spheres = Spheres(self._radii, self._index, self.scene.seed)
        self.scene = changed(
            self.scene,
            pixel_size_um=self.optics.pixel_size_um,
            particle_diameter_um=2 * self._spheres.largest_um,
            margin_um=self._reach_um,  # as far as a sphere's rings are drawn
        )
        model = HologramModel(self.optics, self._reach_um, self.scene.visible_um)
        return DrawnAsHolograms(
            model,
            self._spheres,
            self.shape(),
            np.dtype(self.dtype()),
            self._photons,
            self.scene.seed,
            self._lamp,
        )

    def shutdown(self) -> None:
        """Stop, close the truth and leave the world."""
        super().shutdown()
        self._spheres = None


class Spheres:
    """Which of the sizes each sphere has: drawn at random, and kept as long as it exists."""

    def __init__(self, radii: str, index: float, seed: int) -> None:
        """`radii` in um, separated by blanks; raises `ConfigurationError`."""
        try:
            self._sizes_um = np.array([float(radius) for radius in radii.split()])
        except ValueError:
            self._sizes_um = np.zeros(1)
        if not (np.isfinite(self._sizes_um) & (self._sizes_um > 0)).all() or not self._sizes_um.size:
            raise ConfigurationError(
                f'the simulated camera cannot have Radius_um = {radii!r}; give numbers above 0, as in "0.15 0.23"'
            )
        self.index, self._rng = index, np.random.default_rng((seed, 1))
        self._own_um: FloatArray = np.empty(0)

    @property
    def largest_um(self) -> float:
        """Radius of the largest spheres."""
        return float(self._sizes_um.max())

    def radii_um(self, particles: Particles) -> FloatArray:
        """Radius of each particle, (N,)."""
        new = int(particles.identity.max(initial=-1)) + 1 - self._own_um.size
        if new > 0:
            self._own_um = np.append(self._own_um, self._rng.choice(self._sizes_um, new))
        return self._own_um[particles.identity]


class DrawnAsHolograms:
    """Draws the particles of the world as spheres in a hologram, with the noise of photons."""

    def __init__(
        self,
        model: HologramModel,
        spheres: Spheres,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        photons: float,
        seed: int,
        lamp: float,
    ) -> None:
        self.shape, self.dtype, self.lamp = shape, dtype, lamp
        self._model, self._spheres, self._photons = model, spheres, photons
        self._full = float(np.iinfo(dtype).max)
        self._rng = np.random.default_rng((seed, 2))

    def draw(self, particles: Particles, out: Any) -> None:
        """Draw into an image; spheres beyond the visible depth are left out."""
        p, pixel_um = particles, self._model.optics.pixel_size_um
        index = np.full(p.x_um.size, self._spheres.index)
        described = (p.x_um / pixel_um, p.y_um / pixel_um, p.z_um, self._spheres.radii_um(p), index)
        seen = np.abs(p.z_um) <= self._model.deepest_um
        light = self._model.image(np.column_stack(described)[seen], self.shape)
        photons = self._rng.poisson(self.lamp * self._photons * light)
        out[...] = np.clip(np.rint(photons * (_BACKGROUND * self._full / self._photons)), 0, self._full)
