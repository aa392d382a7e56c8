"""What the simulated cameras share: frame rate and exposure, lost frames, truth, and the scene of the world."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from acquisition.microscope.pymmcore import CameraDevice
from acquisition.physics.rendering import Sight
from acquisition.simulated.properties import SimulatedDevice
from acquisition.simulated.sequence import BufferSource, CameraState, Drawing, FrameSequence
from acquisition.simulated.truth import TruthFile, write_particles
from acquisition.simulated.world import Particles, WorldSettings
from stream.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)

_PIXEL_TYPES: dict[str, np.dtype[Any]] = {"8bit": np.dtype(np.uint8), "16bit": np.dtype(np.uint16)}


@dataclass(frozen=True, slots=True)
class SceneSight:
    """What is seen of the scene, where the optics' model does not say it."""

    pixel_size_um: float
    visible_um: float


class WorldCamera(SimulatedDevice, CameraDevice):
    """A camera that draws the particles of its world at its frame rate; subclasses know the optics.

    A subclass registers its properties in `_register_optics`, says in `_sight` what is seen, and makes the drawing
    in `_prepare`.
    """

    SCENE: ClassVar[Mapping[str, str]]
    """Properties of the scene: their names and the fields of `WorldSettings`."""
    PIXEL_TYPE = "8bit"

    def __init__(self) -> None:
        self.state = CameraState()
        super().__init__()
        self.scene = WorldSettings()
        self._pixel_type = self.PIXEL_TYPE
        self._diffusion_um2_s, self._trap_per_s, self._real_time = 0.03, 0.0, 1
        self._truth_path, self._truth_files = "", 0
        self._particles_path, self._lamp = "", 1.0
        self._drawing: Drawing | None = None
        self._sequence: FrameSequence | None = None
        self._register_optics()
        self._register()

    @abstractmethod
    def _register_optics(self) -> None:
        """Make the properties of the optics."""

    @abstractmethod
    def _sight(self) -> Sight:
        """What the camera sees of the scene."""

    @abstractmethod
    def _prepare(self) -> Drawing:
        """Change the scene as the optics need it, and make what draws."""

    def _describe(self, particles: Particles) -> Mapping[str, npt.NDArray[np.float64]]:
        """What the truth says of particles beside place and velocity, by column, (N,) each."""
        return {}

    def get_exposure(self) -> float:
        """Exposure, ms; it limits the frame rate, but neither blurs nor brightens the image."""
        return self.state.exposure_ms

    def set_exposure(self, exposure: float) -> None:
        """Set the exposure, ms: at most a frame period."""
        self._check_timing(self.state.frame_rate_hz, float(exposure))
        self.state.exposure_ms = float(exposure)

    def shape(self) -> tuple[int, int]:
        """Rows and columns of the image."""
        return self.scene.height_px, self.scene.width_px

    def dtype(self) -> npt.DTypeLike:
        """Pixel type."""
        return _PIXEL_TYPES[self._pixel_type]

    def start_sequence(self, n: int | None, get_buffer: BufferSource) -> Iterator[Mapping[str, str]]:
        """Take `n` frames, or frames until stopped; yields the metadata of each frame once its pixels are written.

        Errors that can be detected beforehand are raised here, in the thread of the caller. A single frame (a
        snap) writes no truth.
        """
        world, drawing = self.world, self._drawing
        if drawing is None:
            raise ConfigurationError("the simulated camera has not been initialised; load its .cfg first")
        if self._sequence is not None:
            self._sequence.close()
        truth = None if n == 1 else self._open_truth()
        self.state.frames_lost, self.state.last_error = 0, ""
        self._sequence = FrameSequence(world, drawing, self.state, truth)
        return self._sequence.frames(n, get_buffer)

    def join(self) -> None:
        """Set up the optics and fill the world with particles."""
        self._drawing = self._prepare()
        self.world.set_diffusion(self._diffusion_um2_s)
        self.world.set_trap(self._trap_per_s)
        self.world.set_real_time(bool(self._real_time))
        self.world.configure(self.scene)

    def shutdown(self) -> None:
        """Stop, close the truth and leave the world."""
        if self._sequence is not None:
            self._sequence.close()
        self._sequence = self._drawing = None
        super().shutdown()

    def error_text(self) -> str:
        """Return the error that ended the last sequence or the start, or ""."""
        return self.state.last_error or self.last_error

    def _open_truth(self) -> TruthFile | None:
        if not self._truth_path:
            return None
        path = Path(self._truth_path)
        if self._truth_files:
            path = path.with_name(f"{path.stem}-{self._truth_files + 1}{path.suffix}")
        truth = TruthFile(path, self.shape(), self._sight(), self._describe)
        self._truth_files += 1
        return truth

    def _register(self) -> None:
        for name, field in self.SCENE.items():
            self._add_field("scene", name, field)
        pixel_types = tuple(_PIXEL_TYPES)
        self.add("PixelType", str, *self._access("_pixel_type"), allowed=pixel_types, pre_init=True)
        self.add(
            "FrameRate", float, lambda: self.state.frame_rate_hz, self._set_frame_rate, limits=(1, 10_000)
        )
        diffusion = (lambda: self._diffusion_um2_s, self._set_diffusion)
        self.add("Diffusion_um2_s", float, *diffusion, limits=(0, 1e4))
        self.add("Trap_per_s", float, lambda: self._trap_per_s, self._set_trap, limits=(0, 1e6))
        self.add("RealTime", int, lambda: self._real_time, self._set_real_time, limits=(0, 1))
        self.add("LeastPeriod_ms", float, self._least_period_ms, self._set_least_period, limits=(0, 60_000))
        self.add("DropEvery", int, lambda: self.state.drop_every, self._set_drop_every, limits=(0, 1_000_000))
        self.add("TruthFile", str, lambda: self._truth_path, self._set_truth_path)
        self.add("ParticlesFile", str, lambda: self._particles_path, self._write_particles)
        self.add("Lamp", float, lambda: self._lamp, self._set_lamp, limits=(0, 1))
        self.add("Particles", int, lambda: int(self.state.particles), self._set_particles, limits=(0, 1))
        self.add("FramesLost", int, lambda: self.state.frames_lost)

    def _add_field(
        self,
        model: str,
        name: str,
        field: str,
        *,
        allowed: tuple[str, ...] | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Register a field of a model; with `then`, called after a change, it can change at any time."""

        def read() -> Any:
            return getattr(getattr(self, model), field)

        def write(value: Any) -> None:
            setattr(self, model, changed(getattr(self, model), **{field: value}))
            if then is not None:
                then()

        self.add(name, type(read()), read, write, allowed=allowed, pre_init=then is None)

    def _access(self, attribute: str) -> tuple[Any, Any]:
        return lambda: getattr(self, attribute), lambda value: setattr(self, attribute, value)

    def _set_frame_rate(self, frame_rate_hz: float) -> None:
        self._check_timing(frame_rate_hz, self.state.exposure_ms)
        self.state.frame_rate_hz = frame_rate_hz

    def _set_diffusion(self, diffusion_um2_s: float) -> None:
        self._diffusion_um2_s = diffusion_um2_s
        if self.attached:
            self.world.set_diffusion(diffusion_um2_s)

    def _set_trap(self, trap_per_s: float) -> None:
        self._trap_per_s = trap_per_s
        if self.attached:
            self.world.set_trap(trap_per_s)

    def _set_real_time(self, real_time: int) -> None:
        self._real_time = real_time
        if self.attached:
            self.world.set_real_time(bool(real_time))

    def _least_period_ms(self) -> float:
        return 1e3 * self.state.least_period_s

    def _set_least_period(self, least_period_ms: float) -> None:
        self.state.least_period_s = least_period_ms / 1e3

    def _set_drop_every(self, every: int) -> None:
        if every == 1:
            raise ConfigurationError("DropEvery = 1 would lose every frame; 0 loses none, 2 every other one")
        self.state.drop_every = every

    def _set_truth_path(self, path: str) -> None:
        self._truth_path, self._truth_files = path, 0

    def _write_particles(self, path: str) -> None:
        if path:
            write_particles(Path(path), self.world.particles_at(self.world.time_s))
        self._particles_path = path

    def _set_lamp(self, lamp: float) -> None:
        self._lamp = lamp
        if self._drawing is not None:
            self._drawing.lamp = lamp

    def _set_particles(self, particles: int) -> None:
        self.state.particles = bool(particles)

    @staticmethod
    def _check_timing(frame_rate_hz: float, exposure_ms: float) -> None:
        if not 0 < exposure_ms <= 1000 / frame_rate_hz:
            raise ConfigurationError(
                f"an exposure of {exposure_ms:g} ms is too long for {frame_rate_hz:g} frames/s; "
                f"shorten it to at most {1000 / frame_rate_hz:.3f} ms or lower FrameRate"
            )


def changed(model: Model, **changes: Any) -> Model:
    """The model with other values; raises `ConfigurationError` for values that cannot be."""
    try:
        return type(model).model_validate({**model.model_dump(), **changes})
    except ValidationError as error:
        names = ", ".join(f"{name} = {value!r}" for name, value in changes.items())
        reasons = "; ".join(str(detail["msg"]) for detail in error.errors())
        raise ConfigurationError(f"the simulated camera cannot have {names}: {reasons}") from None
