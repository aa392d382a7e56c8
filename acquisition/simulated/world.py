"""The simulated world: particles in a channel, its flow, the focus, and simulated time.

x runs along the channel, y across it, both from the centre of the first pixel; the centre of the image lies in the
middle of the channel's width. Heights count from the floor. z is height minus focal plane.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy import interpolate

from acquisition.physics.channel_flow import channel_velocity_um_s
from acquisition.physics.switching import SwitchingModel, SwitchingMotion
from acquisition.simulated.actuators import FocusDrive, Pump

FloatArray = npt.NDArray[np.float64]
BOLTZMANN_J_K = 1.380649e-23
_STEP_S = 0.05
"""Time step of the motion, s. Diffusion moves a particle by some 0.05 um in it (D = 0.03 um^2/s), little against a
channel of 300 um."""
_MAX_STEPS = 200
"""Most steps between two frames; a pause of more than 10 s is simulated in longer ones."""
_READING_S = 0.01
"""Simulated time that a reading of the encoder takes while the drive settles, s."""


class WorldSettings(BaseModel):
    """The scene under the microscope; fixed once the devices are initialised."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    width_px: int = Field(default=768, ge=16, le=16384, description="width of the image, along the channel")
    height_px: int = Field(
        default=512, ge=16, le=16384, description="height of the image, across the channel"
    )
    pixel_size_um: float = Field(default=0.8, gt=0, description="pixel size in object space")
    margin_um: float = Field(
        default=45.0, ge=0, description="particles are followed this far beyond the image"
    )
    channel_width_um: float = Field(default=1000.0, gt=0, description="width of the channel, along y")
    channel_depth_um: float = Field(default=300.0, gt=0, description="depth of the channel, along z")
    particle_diameter_um: float = Field(default=2.0, gt=0, description="diameter of a particle")
    particles_per_frame: float = Field(
        default=60.0, ge=0, description="mean number of particles in the image and the visible depth"
    )
    visible_um: float = Field(default=204.0, gt=0, description="visible depth to either side of the focus")
    seed: int = Field(default=1, ge=0, description="seed of the particles and the noise")


@dataclass(frozen=True, slots=True, eq=False)
class Particles:
    """The particles at one time: arrays of shape (N,). `identity` is new each time one enters the region."""

    time_s: float
    identity: npt.NDArray[np.int64]
    x_um: FloatArray
    y_um: FloatArray
    z_um: FloatArray
    height_um: FloatArray
    vx_um_s: FloatArray
    vy_um_s: FloatArray

    def none(self) -> Particles:
        """The same time without particles."""
        empty = self.x_um[:0]
        return Particles(self.time_s, self.identity[:0], empty, empty, empty, empty, empty, empty)


def stokes_einstein_um2_s(diameter_um: float, viscosity_mpa_s: float, temperature_k: float = 293.15) -> float:
    """Return the diffusion coefficient of a sphere, um^2/s: D = k T / (3 pi eta d) (Einstein 1905)."""
    drag_kg_s = 3 * math.pi * viscosity_mpa_s * 1e-3 * diameter_um * 1e-6
    return BOLTZMANN_J_K * temperature_k / drag_kg_s * 1e12


class World:
    """Particles, focus, pump and clock; every method may be called from any thread.

    The camera advances simulated time by a frame period per frame. With `real_time` it also follows the wall clock
    while no frames are taken, so a move of the focus takes its time in both cases.
    """

    def __init__(self, settings: WorldSettings | None = None) -> None:
        self.lock = threading.RLock()
        self.focus = FocusDrive()
        self.pump = Pump()
        self.diffusion_um2_s = 0.0
        self.trap_per_s = 0.0
        self.switching = SwitchingModel()
        self._epoch_s: float | None = time.perf_counter()
        self._streaming = False
        self.configure(settings or WorldSettings())

    def configure(self, settings: WorldSettings) -> None:
        """Restart at time 0 with new particles; focus and pump rest at their set-points."""
        with self.lock:
            self.settings = settings
            self._time_s = self._moved_until_s = 0.0
            if self._epoch_s is not None:
                self._epoch_s = time.perf_counter()
            self.focus.place(self.focus.target_um)
            self.pump.restart()
            self._rng = np.random.default_rng(settings.seed)
            image_x_um = settings.width_px * settings.pixel_size_um
            image_y_um = settings.height_px * settings.pixel_size_um
            first = -settings.pixel_size_um / 2
            self._x_range = (first - settings.margin_um, first + image_x_um + settings.margin_um)
            middle_y = first + image_y_um / 2
            half_y = min(image_y_um / 2 + settings.margin_um, settings.channel_width_um / 2)
            self._walled = image_y_um / 2 + settings.margin_um >= settings.channel_width_um / 2
            self._middle_x = first + image_x_um / 2
            self._middle_y, self._y_range = middle_y, (middle_y - half_y, middle_y + half_y)
            radius = min(settings.particle_diameter_um / 2, settings.channel_depth_um / 4)
            self._height_range = (radius, settings.channel_depth_um - radius)
            seen_um3 = image_x_um * min(image_y_um, 2 * half_y)
            seen_um3 *= min(2 * settings.visible_um, settings.channel_depth_um)
            followed_um3 = math.prod(high - low for low, high in (self._x_range, self._y_range))
            followed_um3 *= settings.channel_depth_um
            count = round(settings.particles_per_frame * followed_um3 / seen_um3)
            self._x = self._rng.uniform(*self._x_range, count)
            self._y = self._rng.uniform(*self._y_range, count)
            self._height = self._rng.uniform(*self._height_range, count)
            self._identity = np.arange(count)
            self._next_identity = count
            self._velocity_of_unit_flow = _velocity_table(settings, half_y)
            self._seen = False
            self.set_switching(self.switching)

    @property
    def time_s(self) -> float:
        """The simulated time now, s."""
        with self.lock:
            if self._epoch_s is None:
                return self._time_s
            return max(self._time_s, time.perf_counter() - self._epoch_s)

    @property
    def real_time(self) -> bool:
        """Whether simulated time follows the wall clock."""
        return self._epoch_s is not None

    def set_real_time(self, real_time: bool) -> None:
        """Let simulated time follow the wall clock, or let only frames advance it.

        Before the first frame, time that only frames advance begins at 0, however long the microscope took to
        start: the same seed then gives the same images.
        """
        with self.lock:
            now = self.time_s
            starts_anew = not real_time and self.real_time and not self._seen
            self._time_s = max(self._time_s, now)
            self._epoch_s = time.perf_counter() - now if real_time else None
            if starts_anew:
                self.configure(self.settings)

    def wall_s(self, time_s: float) -> float:
        """Return the `time.perf_counter()` at which a simulated time is due (now, without real time)."""
        return time.perf_counter() if self._epoch_s is None else self._epoch_s + time_s

    def set_diffusion(self, diffusion_um2_s: float) -> None:
        """Change the particles' diffusion coefficient."""
        with self.lock:
            self.diffusion_um2_s = diffusion_um2_s

    def set_trap(self, trap_per_s: float) -> None:
        """Draw all particles to the middle of the image, in the plane, as tweezers do: stiffness over drag, 1/s.

        Particles that have not been looked at yet have been held for long.
        """
        with self.lock:
            self.trap_per_s = trap_per_s

    def set_switching(self, model: SwitchingModel) -> None:
        """Let particles be driven at times, besides flow and diffusion; a new model draws their states anew."""
        with self.lock:
            self.switching = model
            self._driven = SwitchingMotion(model, self._x.size, self._rng) if model.speed_um_s > 0 else None

    def skip_to(self, time_s: float) -> None:
        """Advance simulated time at least to a given time."""
        with self.lock:
            self._time_s = max(self._time_s, time_s)

    def set_streaming(self, streaming: bool) -> None:
        """Set whether a camera advances simulated time."""
        with self.lock:
            self._streaming = streaming

    def trigger_focus(self, time_s: float) -> None:
        """The camera's trigger, at a simulated time, reaches the focus drive."""
        with self.lock:
            self.focus.trigger(time_s)

    def focus_busy(self) -> bool:
        """Return whether the focus moves.

        Without real time and without a running camera nothing else would advance time, so this call advances it to
        the end of the move: a caller that waits for an idle microscope does not wait forever.
        """
        with self.lock:
            done = self.focus.done_s()
            if self._epoch_s is None and not self._streaming:
                self._time_s = max(self._time_s, done)
            return self.time_s < done

    def read_focus_um(self) -> float:
        """Return what the focus drive's encoder reads, um.

        As with `focus_busy`, without real time and without a running camera each reading advances time by 10 ms
        while the drive settles, so that a caller that reads until it rests will see it at rest.
        """
        with self.lock:
            if self._epoch_s is None and not self._streaming and not self.focus.rests(self._time_s):
                self._time_s += _READING_S
            return self.focus.encoder_um(self.time_s)

    def particles_at(self, time_s: float) -> Particles:
        """Advance everything to a later simulated time and return the particles."""
        with self.lock:
            if not self._seen:
                self._seen = True
                self._settle_in_trap()
            self._advance(time_s)
            focal_plane = self.focus.focal_plane_um(self._time_s)
            flow_ul_s = self.pump.flow_ul_s(self._time_s)
            velocity = self._velocity() * flow_ul_s if flow_ul_s else np.zeros_like(self._x)
            across = np.zeros_like(velocity)
            if self._driven is not None:
                driven = self._driven.velocity_um_s()
                velocity, across = velocity + driven[0], across + driven[1]
            return Particles(
                self._time_s,
                self._identity.copy(),
                self._x.copy(),
                self._y.copy(),
                self._height - focal_plane,
                self._height.copy(),
                velocity,
                across,
            )

    def _settle_in_trap(self) -> None:
        """Place particles as their trap, if any, holds them: normally around the middle of the image."""
        if self.trap_per_s:
            spread_um = math.sqrt(self.diffusion_um2_s / self.trap_per_s)
            self._x = self._rng.normal(self._middle_x, spread_um, self._x.size)
            self._y = self._rng.normal(self._middle_y, spread_um, self._y.size)
            self._keep_inside()

    def _advance(self, time_s: float) -> None:
        start, duration = self._moved_until_s, time_s - self._moved_until_s
        self._time_s = max(self._time_s, time_s)
        if duration <= 0:
            return
        steps = min(math.ceil(duration / _STEP_S), _MAX_STEPS)
        step = duration / steps
        shake = math.sqrt(2 * self.diffusion_um2_s * step)
        held, along, shake_in_plane = 1.0, 1.0, shake
        if self.trap_per_s:  # Ornstein & Uhlenbeck: exact for any step
            held = math.exp(-self.trap_per_s * step)
            along = (1 - held) / (self.trap_per_s * step)
            shake_in_plane = math.sqrt(self.diffusion_um2_s * (1 - held**2) / self.trap_per_s)
        for k in range(steps):
            delivered = self.pump.volume_ul(start + (k + 1) * step) - self.pump.volume_ul(start + k * step)
            velocity = self._velocity() if delivered else 0.0
            if self.trap_per_s:
                self._x += (held - 1) * (self._x - self._middle_x)
                self._y += (held - 1) * (self._y - self._middle_y)
            self._x += velocity * delivered * along
            if shake:
                self._x += self._rng.normal(0, shake_in_plane, self._x.size)
                self._y += self._rng.normal(0, shake_in_plane, self._x.size)
                self._height += self._rng.normal(0, shake, self._x.size)
            if self._driven is not None:
                moved = self._driven.advance(step)
                self._x += moved[0]
                self._y += moved[1]
                self._height += moved[2]
            self._keep_inside()
        self._moved_until_s = time_s

    def _keep_inside(self) -> None:
        _reflect(self._height, *self._height_range)
        entered = _wrap(self._x, *self._x_range)
        if self._walled:
            _reflect(self._y, *self._y_range)
        else:
            entered |= _wrap(self._y, *self._y_range)
        new = int(np.count_nonzero(entered))
        self._identity[entered] = np.arange(self._next_identity, self._next_identity + new)
        self._next_identity += new

    def _velocity(self) -> FloatArray:
        """Velocity along x at each particle for 1 uL/s, um/s."""
        velocity: FloatArray = self._velocity_of_unit_flow(
            np.column_stack((np.abs(self._y - self._middle_y), self._height))
        )
        return velocity


def _velocity_table(settings: WorldSettings, half_y_um: float) -> interpolate.RegularGridInterpolator:
    y = np.linspace(0, half_y_um, 129)
    height = np.linspace(0, settings.channel_depth_um, 257)
    velocity = channel_velocity_um_s(
        y[:, None], height, settings.channel_width_um, settings.channel_depth_um, 1.0
    )
    return interpolate.RegularGridInterpolator((y, height), velocity, bounds_error=False, fill_value=None)


def _wrap(values: FloatArray, low: float, high: float) -> npt.NDArray[np.bool_]:
    """Bring values back into [low, high) periodically, in place; return which ones had left."""
    outside = (values < low) | (values >= high)
    values[outside] = low + np.mod(values[outside] - low, high - low)
    return outside


def _reflect(values: FloatArray, low: float, high: float) -> None:
    """Mirror values at the walls into [low, high], in place."""
    phase = np.mod(values - low, 2 * (high - low))
    values[:] = low + np.minimum(phase, 2 * (high - low) - phase)
