"""Slices of fluorescent particles in confocal or light-sheet optics, with the noise of photons and of the camera.

A particle's image is a Gaussian, sampled at the centres of the pixels. In confocal optics its width is the same at
all depths and its brightness a Gaussian of the depth. In a light sheet the sheet makes the brightness fall with
depth, and the detection widens the image like a Gaussian beam, its light spread over the larger area.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from pydantic import BaseModel, ConfigDict, Field

from stream.errors import ConfigurationError

FloatArray = npt.NDArray[np.float64]
PixelArray = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

REACH_SIGMAS = 4.0
"""Sigmas to which a particle is drawn: 3e-4 of its peak are left there, a hundredth of a photon for a peak of
30."""
FAINTEST = 1e-3
"""Photons below which a particle leaves no trace in a slice, at its centre."""
_BANK_PIXELS = 1 << 23
"""Pixels of background in the bank (32 MiB); more would take longer to fill at the start than the rest of it."""
_MOST_FRAMES, _LEAST_FRAMES = 64, 16
"""Slices in the bank: no row of background comes back within so many slices, which is more than a volume has
usually; powers of 2, so that every odd step goes through all of them."""
_SMALL_MEAN = 12.0
"""Photons up to which numbers are drawn by adding up probabilities, faster there than the general method; exact."""


class FluorescenceModel(BaseModel):
    """Optics, light and camera; numbers of photons are those detected in one exposure."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["confocal", "light_sheet"] = Field("confocal", description="the optics")
    pixel_size_um: float = Field(0.2, gt=0, description="pixel size in object space")
    sigma_x_um: float = Field(0.26, gt=0, description="sigma of a particle in focus, along x")
    sigma_y_um: float = Field(0.26, gt=0, description="sigma of a particle in focus, along y")
    sigma_z_um: float = Field(
        0.65, gt=0, description="sigma of the brightness along z: of the PSF, or of the light sheet"
    )
    depth_of_focus_um: float = Field(
        1.0, gt=0, description="light sheet: distance from focus at which the image is sqrt(2) times as wide"
    )
    peak: float = Field(60.0, gt=0, description="photons in the brightest pixel of a particle in focus")
    background: float = Field(10.0, ge=0, description="photons of the background, mean over the image")
    unevenness: float = Field(0.3, ge=0, lt=1, description="how far the background deviates, of its mean")
    gain: float = Field(1.0, gt=0, description="grey values of a photon")
    offset: float = Field(100.0, ge=0, description="grey value without light")
    read_noise: float = Field(1.5, ge=0, description="noise of the camera, photons (standard deviation)")

    @property
    def visible_um(self) -> float:
        """Distance from focus up to which a particle is seen: three sigmas."""
        return 3 * self.sigma_z_um


def background_map(model: FluorescenceModel, shape: tuple[int, int]) -> FloatArray:
    """Photons of the background at each pixel (H, W): a tilt and a broad bright place, whose mean is
    `background`."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    field = 0.5 * (x + 0.6 * y[:, None]) + np.exp(-2 * ((x - 0.3) ** 2 + (y[:, None] + 0.2) ** 2))
    field -= field.mean()
    field /= np.abs(field).max() or 1.0
    uneven: FloatArray = model.background * (1 + model.unevenness * field)
    return uneven


class FluorescenceRenderer:
    """Draws slices of one shape and pixel type; not thread-safe, allocates nothing of the size of a slice.

    The background comes from a bank of slices whose numbers of photons are Poisson-distributed with the mean of
    their pixel; photons of particles, drawn anew in every slice, are added: the sum of two Poisson numbers is one.
    """

    def __init__(
        self, model: FluorescenceModel, shape: tuple[int, int], dtype: npt.DTypeLike, *, seed: int = 0
    ) -> None:
        pixel_type = np.dtype(dtype)
        if pixel_type not in (np.uint8, np.uint16):
            raise ConfigurationError(
                f"a camera image is uint8 or uint16, not {pixel_type}; choose one of these"
            )
        if min(shape) < 1:
            raise ConfigurationError(f"an image of {shape[0]} x {shape[1]} pixels is empty; give it a size")
        self.model, self.shape, self.dtype = model, shape, pixel_type
        self._rng = np.random.default_rng(seed)
        self._signal = np.zeros(shape, np.float32)
        self._lamp = 1.0
        self._frame = 0
        self._fill_bank()

    @property
    def lamp(self) -> float:
        """Brightness of the light, 1 by default, 0 for none."""
        return self._lamp

    @lamp.setter
    def lamp(self, lamp: float) -> None:
        if lamp != self._lamp:
            self._lamp = lamp
            self._fill_bank()

    def change(self, model: FluorescenceModel) -> None:
        """Draw with another model from now on."""
        before, self.model = self.model, model
        names = ("background", "unevenness", "read_noise")
        if any(getattr(before, name) != getattr(model, name) for name in names):
            self._fill_bank()

    def _fill_bank(self) -> None:
        rows, columns = self.shape
        fitting = max(_LEAST_FRAMES, min(_MOST_FRAMES, _BANK_PIXELS // (rows * columns)))
        frames = 1 << (fitting.bit_length() - 1)
        mean = self._lamp * background_map(self.model, self.shape)
        self._bank = np.empty((frames, rows, columns), np.float32)
        read_noise = np.float32(self.model.read_noise)
        for photons in self._bank:
            photons[:] = self._rng.poisson(mean) + read_noise * self._rng.standard_normal(
                self.shape, np.float32
            )

    def render(
        self, x_um: FloatArray, y_um: FloatArray, z_um: FloatArray, brightness: FloatArray, out: PixelArray
    ) -> None:
        """Draw particles at (N,) positions, z from the focal plane, into `out`.

        `brightness` is that of each particle relative to `peak`.
        """
        if out.shape != self.shape or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ConfigurationError(
                f"the renderer draws C-contiguous {self.shape} {self.dtype}, not {out.shape} {out.dtype}; "
                "pass a matching array"
            )
        model = self.model
        peak, widening = self._seen(np.asarray(z_um, float), np.asarray(brightness, float))
        seen = peak > FAINTEST
        spots = _Spots(
            np.asarray(x_um, float)[seen] / model.pixel_size_um,
            np.asarray(y_um, float)[seen] / model.pixel_size_um,
            peak[seen],
            widening[seen] * model.sigma_x_um / model.pixel_size_um,
            widening[seen] * model.sigma_y_um / model.pixel_size_um,
        )
        camera = (np.float32(model.gain), np.float32(model.offset), np.float32(np.iinfo(self.dtype).max))
        _add_spots(self._signal, spots)
        _expose(out, self._signal, self._bank, self._rows(), camera, self._rng)

    def _seen(self, z_um: FloatArray, brightness: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Photons at the centre of each particle's image, and how much wider than in focus it is."""
        model = self.model
        peak = self._lamp * model.peak * brightness * np.exp(-0.5 * (z_um / model.sigma_z_um) ** 2)
        if model.kind == "confocal":
            return peak, np.ones_like(z_um)
        spread = 1 + (z_um / model.depth_of_focus_um) ** 2
        return peak / spread, np.sqrt(spread)

    def _rows(self) -> npt.NDArray[np.int64]:
        """Which slice of the bank each row takes: each row goes through all of them in its own order."""
        frames = len(self._bank)
        if self._frame % frames == 0:
            self._first_rows = self._rng.integers(0, frames, self.shape[0])
            self._row_steps = 1 + 2 * self._rng.integers(0, frames // 2, self.shape[0])
        rows: npt.NDArray[np.int64] = (self._first_rows + self._frame * self._row_steps) % frames
        self._frame += 1
        return rows

    def warmup(self) -> None:
        """Compile or load the machine code, so that the first live slice does not wait for it."""
        one = np.zeros(1)
        self.render(one, one, one, one, np.empty(self.shape, self.dtype))


class _Spots(NamedTuple):
    """Particles (N,): x, y and sigmas in pixels, photons at the centre."""

    x_px: Any
    y_px: Any
    peak: Any
    sigma_x_px: Any
    sigma_y_px: Any


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def _add_spots(signal: Any, spots: Any) -> None:
    """Expected photons of all particles at each pixel (H, W)."""
    signal[:] = np.float32(0)
    height, width = signal.shape
    profile = np.empty(width, np.float32)
    for p in range(spots.x_px.size):
        x, y = spots.x_px[p], spots.y_px[p]
        sx, sy = spots.sigma_x_px[p], spots.sigma_y_px[p]
        left, right = (
            max(math.ceil(x - REACH_SIGMAS * sx), 0),
            min(math.floor(x + REACH_SIGMAS * sx) + 1, width),
        )
        top, bottom = (
            max(math.ceil(y - REACH_SIGMAS * sy), 0),
            min(math.floor(y + REACH_SIGMAS * sy) + 1, height),
        )
        for j in range(left, right):
            profile[j] = math.exp(-0.5 * ((j - x) / sx) ** 2)
        for i in range(top, bottom):
            factor = np.float32(spots.peak[p] * math.exp(-0.5 * ((i - y) / sy) ** 2))
            row = signal[i]
            for j in range(left, right):
                row[j] += factor * profile[j]


@njit(cache=True, nogil=True)
def _expose(out: Any, signal: Any, bank: Any, rows: Any, camera: Any, rng: Any) -> None:
    """Grey values: offset + gain (photons of background and particles + read noise), rounded and cut off."""
    gain, offset, full_scale = camera
    height, width = out.shape
    for i in range(height):
        background = bank[rows[i], i]
        for j in range(width):
            photons = background[j]
            mean = signal[i, j]
            if mean > 0:
                photons += np.float32(_poisson(mean, rng))
            value = offset + gain * photons + np.float32(0.5)
            out[i, j] = out.dtype.type(min(max(value, np.float32(0)), full_scale))


@njit(cache=True, nogil=True)
def _poisson(mean: Any, rng: Any) -> Any:
    """A Poisson-distributed number: for small means the first one whose cumulative probability passes a uniform."""
    if mean > _SMALL_MEAN:
        return rng.poisson(mean)
    uniform = rng.random()
    probability = math.exp(-mean)
    total = probability
    number = 0
    while uniform > total and probability > 0:
        number += 1
        probability *= mean / number
        total += probability
    return number
