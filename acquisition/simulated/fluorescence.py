"""The simulated camera behind a confocal microscope or a light sheet, with fluorescent particles."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from acquisition.physics.fluorescence import FluorescenceModel, FluorescenceRenderer
from acquisition.physics.rendering import Sight
from acquisition.physics.switching import SwitchingModel
from acquisition.simulated.world import Particles
from acquisition.simulated.world_camera import WorldCamera, changed

FloatArray = npt.NDArray[np.float64]

_MODEL_PROPERTIES = {
    "SigmaX_um": "sigma_x_um",
    "SigmaY_um": "sigma_y_um",
    "SigmaZ_um": "sigma_z_um",
    "DepthOfFocus_um": "depth_of_focus_um",
    "Peak": "peak",
    "Background": "background",
    "Unevenness": "unevenness",
    "Gain": "gain",
    "Offset": "offset",
    "ReadNoise": "read_noise",
}


class FluorescenceCamera(WorldCamera):
    """Slices of fluorescent particles that diffuse, are driven at times, flow and bleach.

    docs/volumes-acquisition.md lists its properties.
    """

    SCENE: ClassVar = {
        "Width": "width_px",
        "Height": "height_px",
        "ChannelWidth_um": "channel_width_um",
        "ChannelDepth_um": "channel_depth_um",
        "ParticlesPerVolume": "particles_per_frame",
        "ParticleDiameter_um": "particle_diameter_um",
        "Seed": "seed",
    }
    PIXEL_TYPE = "16bit"

    def _register_optics(self) -> None:
        self.model = FluorescenceModel()
        self._spread, self._bleach_s = 0.2, 0.0
        self._speed_um_s, self._starts_per_s, self._stops_per_s = 0.0, 0.2, 0.5
        self._renderer: FluorescenceRenderer | None = None
        self._add_field("model", "Optics", "kind", allowed=("confocal", "light_sheet"))
        self._add_field("model", "PixelSize_um", "pixel_size_um")
        for name, field in _MODEL_PROPERTIES.items():
            self._add_field("model", name, field, then=self._change_model)
        self.add("BrightnessSpread", float, *self._access("_spread"), limits=(0, 2), pre_init=True)
        self.add("BleachTime_s", float, *self._access("_bleach_s"), limits=(0, 1e6), pre_init=True)
        self.add("DrivenSpeed_um_s", float, *self._driven("_speed_um_s"), limits=(0, 1e4))
        self.add("DriveStarts_per_s", float, *self._driven("_starts_per_s"), limits=(0, 1e4))
        self.add("DriveStops_per_s", float, *self._driven("_stops_per_s"), limits=(0, 1e4))

    def _change_model(self) -> None:
        if self._renderer is not None:
            self._renderer.change(self.model)

    def shutdown(self) -> None:
        """Stop, close the truth and leave the world."""
        super().shutdown()
        self._renderer = None

    def _driven(self, attribute: str) -> tuple[Any, Any]:
        def write(value: float) -> None:
            setattr(self, attribute, value)
            if self.attached:
                self.world.set_switching(self._switching())

        return lambda: getattr(self, attribute), write

    def _switching(self) -> SwitchingModel:
        return SwitchingModel(self._speed_um_s, self._starts_per_s, self._stops_per_s)

    def _sight(self) -> Sight:
        return self.model

    def _prepare(self) -> DrawnInFluorescence:
        model = self.model
        reach_um = 4 * max(model.sigma_x_um, model.sigma_y_um)
        self.scene = changed(
            self.scene,
            pixel_size_um=model.pixel_size_um,
            visible_um=self.scene.channel_depth_um,  # so that particles are counted in the whole depth
            margin_um=reach_um * (1 if model.kind == "confocal" else 2),
        )
        renderer = FluorescenceRenderer(model, self.shape(), self.dtype(), seed=self.scene.seed)
        renderer.lamp = self._lamp
        renderer.warmup()
        self._renderer = renderer
        self.world.set_switching(self._switching())
        return DrawnInFluorescence(renderer, Brightness(self._spread, self._bleach_s, self.scene.seed))


class Brightness:
    """How bright each particle is: log-normally distributed, and fading exponentially since it came into view.

    `spread` is the standard deviation of the logarithm, `bleach_s` the time after which 1/e is left, 0 for no end.
    """

    def __init__(self, spread: float, bleach_s: float, seed: int) -> None:
        self._spread, self._bleach_s = spread, bleach_s
        self._rng = np.random.default_rng((seed, 1))
        self._own: FloatArray = np.empty(0)
        self._since_s: FloatArray = np.empty(0)

    def of(self, particles: Particles) -> FloatArray:
        """Brightness of each particle now, (N,), 1 in the median."""
        known = int(particles.identity.max(initial=-1)) + 1
        new = known - self._own.size
        if new > 0:
            self._own = np.append(self._own, np.exp(self._rng.normal(0, self._spread, new)))
            self._since_s = np.append(self._since_s, np.full(new, particles.time_s))
        own = self._own[particles.identity]
        if self._bleach_s == 0:
            return own
        faded: FloatArray = own * np.exp(
            (self._since_s[particles.identity] - particles.time_s) / self._bleach_s
        )
        return faded


class DrawnInFluorescence:
    """Draws the particles of the world as slices in fluorescence."""

    def __init__(self, renderer: FluorescenceRenderer, brightness: Brightness) -> None:
        self._renderer, self._brightness = renderer, brightness
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
        p = particles
        self._renderer.render(p.x_um, p.y_um, p.z_um, self._brightness.of(p), out)
