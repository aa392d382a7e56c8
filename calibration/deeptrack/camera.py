"""A camera of the simulated microscope that sees the objects of a DeepTrack pipeline.

It is named in a Micro-Manager configuration file (`pipeline.cfg`), as are the other simulated devices, and shares
their world: flow, diffusion, focus and time are those of the world, objects and optics those of the pipeline.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from acquisition.simulated.sequence import BufferSource
from acquisition.simulated.world import Particles
from acquisition.simulated.world_camera import SceneSight, WorldCamera, changed
from calibration.deeptrack.grey_values import as_grey, gain_for
from calibration.deeptrack.objects import PipelineObjects
from stream.errors import ConfigurationError

FloatArray = npt.NDArray[np.float64]
TIMED = 20
"""Frames over which the time to draw one is averaged."""


class PipelineCamera(WorldCamera):
    """Draws the objects of a pipeline in the world's flow; docs/simulated-microscope.md lists its properties."""

    SCENE: ClassVar = {
        "ChannelWidth_um": "channel_width_um",
        "ChannelDepth_um": "channel_depth_um",
        "ParticleDiameter_um": "particle_diameter_um",
        "ParticlesPerFrame": "particles_per_frame",
        "Margin_um": "margin_um",
        "Seed": "seed",
    }
    PIXEL_TYPE = "16bit"

    def _register_optics(self) -> None:
        self._pipeline, self._gain, self._offset, self._visible_um = "", 0.0, 0.0, 0.0
        self._objects: PipelineObjects | None = None
        self.add("Pipeline", str, lambda: self._pipeline, self._set_pipeline)
        self.add("Gain", float, *self._access("_gain"), limits=(0, 1e12), pre_init=True)
        self.add("Offset", float, *self._access("_offset"), limits=(-1e6, 1e6), pre_init=True)
        self.add("VisibleDepth_um", float, *self._access("_visible_um"), limits=(0, 1e5), pre_init=True)
        self.add("PixelSize_um", float, lambda: self.scene.pixel_size_um)
        self.add("DrawingTime_ms", float, self._drawing_ms)

    def _drawing_ms(self) -> float:
        return self._drawing.mean_ms if isinstance(self._drawing, DrawnByPipeline) else 0.0

    def _set_pipeline(self, pipeline: str) -> None:
        """Take another pipeline; the world begins anew with its objects. One that fails leaves all as it was."""
        before, self._pipeline = self._pipeline, pipeline
        try:
            if self.attached:
                self.join()
        except BaseException:
            self._pipeline = before
            raise

    def join(self) -> None:
        """Draw the pipeline once and fill the world; without a pipeline, wait for one."""
        if self._pipeline:
            super().join()

    def start_sequence(self, n: int | None, get_buffer: BufferSource) -> Iterator[Mapping[str, str]]:
        """As other cameras; raises `ConfigurationError` without a pipeline."""
        if self._drawing is None:
            raise ConfigurationError(
                'the simulated camera has no objects to draw; set its property Pipeline to "pipeline.py" or '
                '"pipeline.py:NAME"'
            )
        return super().start_sequence(n, get_buffer)

    def _sight(self) -> SceneSight:
        return SceneSight(self.scene.pixel_size_um, self.scene.visible_um)

    def _describe(self, particles: Particles) -> Mapping[str, FloatArray]:
        return {} if self._objects is None else self._objects.properties(particles.identity)

    def _prepare(self) -> DrawnByPipeline:
        objects = PipelineObjects(self._pipeline, self.scene.seed)
        rows, columns = objects.shape
        self.scene = changed(
            self.scene,
            height_px=rows,
            width_px=columns,
            pixel_size_um=objects.pixel_size_um,
            visible_um=self._visible_um or self.scene.channel_depth_um,
        )
        self._objects = objects
        pixel_type = np.dtype(self.dtype())
        gain = self._gain or gain_for(objects.first_image, self._offset, float(np.iinfo(pixel_type).max))
        return DrawnByPipeline(objects, pixel_type, gain, self._offset, self._lamp)

    def shutdown(self) -> None:
        """Stop, close the truth and leave the world."""
        super().shutdown()
        self._objects = None


class DrawnByPipeline:
    """Draws the particles of the world as objects of a pipeline, in grey values `offset + gain * lamp * image`."""

    def __init__(
        self, objects: PipelineObjects, dtype: np.dtype[Any], gain: float, offset: float, lamp: float
    ) -> None:
        self._objects, self._gain, self._offset = objects, gain, offset
        self.lamp, self.shape, self.dtype = lamp, objects.shape, dtype
        self._took_s: deque[float] = deque(maxlen=TIMED)

    @property
    def mean_ms(self) -> float:
        """Time to draw a frame, ms, over the last ones; 0 before the first."""
        return 1e3 * float(np.mean(self._took_s)) if self._took_s else 0.0

    def draw(self, particles: Particles, out: Any) -> None:
        """Draw into an image."""
        began = time.perf_counter()
        p = particles
        if p.identity.size:  # an image without particles is no reason to forget what they are
            self._objects.keep(p.identity)
        image = self._objects.draw(p.identity, p.x_um, p.y_um, p.z_um)
        out[...] = as_grey(image, self._gain * self.lamp, self._offset, self.dtype)
        self._took_s.append(time.perf_counter() - began)
