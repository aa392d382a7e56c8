"""The simulated camera: a Python camera device that renders the simulated world at its frame rate."""

from __future__ import annotations

from typing import Any, ClassVar

from acquisition.physics.image_table import load_bank
from acquisition.physics.optics import OpticsModel
from acquisition.physics.rendering import Renderer, Sight
from acquisition.simulated.world import Particles
from acquisition.simulated.world_camera import WorldCamera, changed

_OPTICS_PROPERTIES = {
    "Polarity": "polarity",
    "NumericalAperture": "numerical_aperture",
    "CondenserNA": "condenser_na",
    "PixelSize_um": "pixel_size_um",
    "ParticleDiameter_um": "particle_diameter_um",
    "ParticleIndex": "particle_index",
    "MediumIndex": "medium_index",
    "FocalLineSeparation_um": "focal_line_separation_um",
    "Rotation_deg": "rotation_deg",
}


class SimulatedCamera(WorldCamera):
    """Renders particles in a channel flow; docs/simulated-microscope.md lists its properties."""

    SCENE: ClassVar = {
        "Width": "width_px",
        "Height": "height_px",
        "ChannelWidth_um": "channel_width_um",
        "ChannelDepth_um": "channel_depth_um",
        "ParticlesPerFrame": "particles_per_frame",
        "Seed": "seed",
    }

    def _register_optics(self) -> None:
        self.optics, self._shading, self._snr = OpticsModel(), 0.0, 8.0
        self._renderer: Renderer | None = None
        for name, field in _OPTICS_PROPERTIES.items():
            allowed = ("dark", "bright") if name == "Polarity" else None
            self._add_field("optics", name, field, allowed=allowed)
        self.add("Shading", float, *self._access("_shading"), limits=(0, 0.9), pre_init=True)
        self.add("SNR", float, lambda: self._snr, self._set_snr, limits=(0.1, 1e6))

    def _sight(self) -> Sight:
        return self.optics

    def _prepare(self) -> DrawnInFlow:
        """Compute or load the particle images."""
        optics = self.optics
        self.scene = changed(
            self.scene,
            pixel_size_um=optics.pixel_size_um,
            particle_diameter_um=optics.particle_diameter_um,
            visible_um=optics.visible_um,
            margin_um=optics.half_size_px * optics.pixel_size_um,
        )
        self._renderer = Renderer(
            load_bank(optics),
            self.shape(),
            self.dtype(),
            snr=self._snr,
            shading=self._shading,
            seed=self.scene.seed,
        )
        self._renderer.lamp = self._lamp
        self._renderer.warmup()
        return DrawnInFlow(self._renderer)

    def shutdown(self) -> None:
        """Stop, close the truth and leave the world."""
        super().shutdown()
        self._renderer = None

    def _set_snr(self, snr: float) -> None:
        self._snr = snr
        if self._renderer is not None:
            self._renderer.snr = snr


class DrawnInFlow:
    """Draws the particles of the world with a renderer of transmitted light."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self.shape, self.dtype = renderer.shape, renderer.dtype

    @property
    def lamp(self) -> float:
        """Brightness of the light."""
        return self._renderer.lamp

    @lamp.setter
    def lamp(self, lamp: float) -> None:
        self._renderer.lamp = lamp

    def draw(self, particles: Particles, out: Any) -> None:
        """Draw into an image."""
        self._renderer.render(particles.x_um, particles.y_um, particles.z_um, out)
