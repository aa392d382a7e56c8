"""Camera images of many particles from the look-up table, with sensor noise, fast enough for live rates.

A particle is interpolated linearly between the two neighbouring depths at the nearest quarter pixel; the rest of
the shift, at most an eighth of a pixel, is applied with the gradient of the image, which moves the centroid
exactly. So the true position is the given one, not a rounded one. Noise comes from a bank of normal deviates, for
each row from another random place in every frame, and grows with the square root of the light.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from numba import njit

from acquisition.physics.image_table import SHIFTS, Z_STEP_UM, ImageBank, load_bank
from acquisition.physics.optics import OpticsModel
from stream.errors import ConfigurationError

FloatArray = npt.NDArray[np.float64]
PixelArray = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

BACKGROUND_OF_FULL_SCALE = {"dark": 200 / 255, "bright": 40 / 255}
"""Grey value of an empty image over the largest one; leaves room for brighter and darker pixels."""
_NOISE_SAMPLES = 1 << 22
"""Normal deviates in the bank (8 MiB). Rows begin at random places, so two rows of a frame of 1440 overlap often,
but at another offset; fewer would repeat visibly, more would not stay in the cache."""
_NOISE_UNITS_PER_SD = 6000
"""Integer units of the bank for one standard deviation: deviates are cut off at 5.5 of them (int16), which concerns
5e-8 of all, and rounded to 1.7e-4 of one."""
_BAND_ROWS = 16
"""Rows drawn before the next: the contrast of a band (164 kB at 2560 columns) stays in the processor's cache. Does
not change the image."""


class Positions(NamedTuple):
    """True positions of particles: arrays of shape (N,), x and y from the centre of the first pixel."""

    x_um: FloatArray
    y_um: FloatArray
    z_um: FloatArray


class Renderer:
    """Draws frames of one shape and pixel type; not thread-safe, allocates nothing of the size of a frame.

    `snr` is the mean over the visible depth of (background - darkest pixel of a particle) over the standard
    deviation of the background (Franchini & Krevor 2020, 2.1.1), infinite for no noise. `shading` darkens the
    corners of the illumination by this fraction; `lamp` is its brightness, 1 by default, 0 for no light.
    """

    def __init__(
        self,
        bank: ImageBank,
        shape: tuple[int, int],
        dtype: npt.DTypeLike = np.uint8,
        *,
        snr: float = 5.6,
        shading: float = 0.0,
        seed: int = 0,
    ) -> None:
        pixel_type = np.dtype(dtype)
        if pixel_type not in (np.uint8, np.uint16):
            raise ConfigurationError(
                f"a camera image is uint8 or uint16, not {pixel_type}; choose one of these"
            )
        if min(shape) < 1:
            raise ConfigurationError(f"an image of {shape[0]} x {shape[1]} pixels is empty; give it a size")
        self.bank, self.shape, self.dtype = bank, shape, pixel_type
        self._full_scale = float(np.iinfo(pixel_type).max)
        self.background = self._full_scale * BACKGROUND_OF_FULL_SCALE[bank.optics.polarity]
        self.snr = snr
        self.lamp = 1.0
        self._rng = np.random.default_rng(seed)
        deviates = self._rng.standard_normal(_NOISE_SAMPLES + shape[1], np.float32)
        self._noise = np.clip(np.rint(deviates * _NOISE_UNITS_PER_SD), -32767, 32767).astype(np.int16)
        self._light = _illumination(shape, shading)
        self._band = np.zeros((_BAND_ROWS, shape[1]), np.float32)

    @property
    def noise_sd(self) -> float:
        """Standard deviation of the background, grey values, including rounding to integers."""
        return self.background * self.bank.mean_peak / self.snr

    def render(self, x_um: FloatArray, y_um: FloatArray, z_um: FloatArray, out: PixelArray) -> None:
        """Draw particles at (N,) positions into `out`; those outside the image or depth range leave no trace."""
        if out.shape != self.shape or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ConfigurationError(
                f"the renderer draws C-contiguous {self.shape} {self.dtype}, not {out.shape} {out.dtype}; "
                "pass a matching array"
            )
        depth = (np.asarray(z_um, float) - self.bank.z_um[0]) / Z_STEP_UM
        seen = (depth >= 0) & (depth < len(self.bank.z_um) - 1)
        pixel_size = self.bank.optics.pixel_size_um
        rounding_variance = 1 / 12
        added_sd = math.sqrt(max(self.noise_sd**2 - rounding_variance, 0.0))
        camera = _Camera(
            self._light,
            np.float32(self.background * self.lamp),
            np.float32(self._full_scale),
            self._noise,
            self._rng.integers(0, _NOISE_SAMPLES, self.shape[0]),
            np.float32(added_sd * math.sqrt(self.lamp) / _NOISE_UNITS_PER_SD),
        )
        table = _Table(self.bank.images, self.bank.extent_px, np.float32(self.bank.scale))
        x_px, y_px = np.asarray(x_um, float)[seen] / pixel_size, np.asarray(y_um, float)[seen] / pixel_size
        _draw(out, self._band, camera, table, _Drawn(x_px, y_px, depth[seen]))

    def warmup(self) -> None:
        """Compile or load the machine code, so that the first live frame does not wait for it."""
        nothing = np.empty(0)
        self.render(nothing, nothing, nothing, np.empty(self.shape, self.dtype))


def simulate_images(
    optics: OpticsModel,
    x_um: npt.ArrayLike,
    y_um: npt.ArrayLike,
    z_um: npt.ArrayLike,
    shape: tuple[int, int],
    *,
    snr: float = 5.6,
    seed: int = 0,
    dtype: npt.DTypeLike = np.uint8,
    shading: float = 0.0,
) -> tuple[PixelArray, Positions]:
    """Draw one image of particles at given positions; also return the visible ones.

    A particle is visible if its centre lies in the image and |z| is at most `optics.visible_um`.
    For many images keep a `Renderer`.
    """
    x, y, z = np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, float)) for v in (x_um, y_um, z_um)))
    renderer = Renderer(load_bank(optics), shape, dtype, snr=snr, shading=shading, seed=seed)
    image: PixelArray = np.empty(shape, renderer.dtype)
    renderer.render(x, y, z, image)
    seen = in_sight(x, y, z, shape, optics)
    return image, Positions(x[seen], y[seen], z[seen])


class Sight(Protocol):
    """The part of an optics model that says what is seen."""

    @property
    def pixel_size_um(self) -> float:
        """Pixel size in object space, um."""
        ...

    @property
    def visible_um(self) -> float:
        """Depth to either side of the focus in which a particle is seen, um."""
        ...


def in_sight(
    x_um: FloatArray, y_um: FloatArray, z_um: FloatArray, shape: tuple[int, int], optics: Sight
) -> npt.NDArray[np.bool_]:
    """Return which particles have their centre inside the image and within the visible depth."""
    edge_um = 0.5 * optics.pixel_size_um
    seen: npt.NDArray[np.bool_] = (
        (np.abs(z_um) <= optics.visible_um)
        & (x_um >= -edge_um)
        & (x_um < shape[1] * optics.pixel_size_um - edge_um)
        & (y_um >= -edge_um)
        & (y_um < shape[0] * optics.pixel_size_um - edge_um)
    )
    return seen


def _illumination(shape: tuple[int, int], shading: float) -> npt.NDArray[np.float32]:
    """Relative light of each pixel, (H, W), or (1, 1) if it is uniform."""
    if not 0 <= shading < 1:
        raise ConfigurationError(f"shading is the light lost in the corners, 0 to below 1, not {shading}")
    if shading == 0:
        return np.ones((1, 1), np.float32)
    rows, columns = (np.linspace(-1, 1, n) ** 2 / 2 for n in shape)
    return (1 - shading * (rows[:, None] + columns)).astype(np.float32)


class _Camera(NamedTuple):
    """What turns contrast into grey values.

    `light` is the relative illumination (H, W), or (1, 1) if it is uniform; `background` the grey value of an empty
    image, `full_scale` the largest one. `noise` are normal deviates as integers (K,), `noise_start` (H,) where in
    them each row begins, `noise_scale` the grey values of one unit of `noise` at a relative light of 1.
    """

    light: Any
    background: Any
    full_scale: Any
    noise: Any
    noise_start: Any
    noise_scale: Any


class _Table(NamedTuple):
    """The look-up table of particle images: `images`, `extent_px` and `scale` of an `ImageBank`."""

    images: Any
    extent_px: Any
    scale: Any


class _Drawn(NamedTuple):
    """Particles (N,): x and y in pixels from the centre of the first one, depth as a place in the table."""

    x_px: Any
    y_px: Any
    depth: Any


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def _draw(out: Any, band: Any, camera: Any, table: Any, particles: Any) -> None:
    """Draw particles into `out` (H, W), one `band` (B, W) of rows after the other.

    With the contrast c(row, column) summed over all particles, the illumination l, the background b and a normal
    deviate n: l b (1 - c) + n s sqrt(l (1 - c)), where s is the standard deviation of the noise of the background.
    """
    light, images, scale = camera.light, table.images, table.scale
    x_px, y_px, depth, extent = particles.x_px, particles.y_px, particles.depth, table.extent_px
    background, full_scale = camera.background, camera.full_scale
    noise, noise_start, noise_scale = camera.noise, camera.noise_start, camera.noise_scale
    height, width = out.shape
    count = x_px.size
    middle = images.shape[3] // 2
    even = light.shape[0] == 1
    half, one = np.float32(0.5), np.float32(1.0)
    for top in range(0, height, band.shape[0]):
        bottom = min(top + band.shape[0], height)
        band[:] = np.float32(0)
        for p in range(count):
            quarter_y, quarter_x = round(y_px[p] * SHIFTS), round(x_px[p] * SHIFTS)
            row0, column0 = quarter_y // SHIFTS, quarter_x // SHIFTS
            level = int(depth[p])
            reach_y = max(extent[level, 0], extent[level + 1, 0])
            first, last = max(row0 - reach_y, top), min(row0 + reach_y + 1, bottom)
            if first >= last:
                continue
            reach_x = max(extent[level, 1], extent[level + 1, 1])
            left, right = max(column0 - reach_x, 0), min(column0 + reach_x + 1, width)
            if left >= right:
                continue
            rest_y = np.float32((y_px[p] - quarter_y / SHIFTS) * 0.5)
            rest_x = np.float32((x_px[p] - quarter_x / SHIFTS) * 0.5)
            upper = np.float32(depth[p] - level) * scale
            lower = scale - upper
            a = images[level, quarter_y % SHIFTS, quarter_x % SHIFTS]
            b = images[level + 1, quarter_y % SHIFTS, quarter_x % SHIFTS]
            offset = middle - column0
            for row in range(first, last):
                i = row - row0 + middle
                target = band[row - top]
                for j in range(left, right):
                    k = j + offset
                    target[j] += lower * (
                        np.float32(a[i, k])
                        + rest_x * np.float32(a[i, k - 1] - a[i, k + 1])
                        + rest_y * np.float32(a[i - 1, k] - a[i + 1, k])
                    ) + upper * (
                        np.float32(b[i, k])
                        + rest_x * np.float32(b[i, k - 1] - b[i, k + 1])
                        + rest_y * np.float32(b[i - 1, k] - b[i + 1, k])
                    )
        for row in range(top, bottom):
            contrast = band[row - top]
            grain = noise[noise_start[row] : noise_start[row] + width]
            target_row = out[row]
            for j in range(width):
                relative = one - contrast[j]
                if not even:
                    relative *= light[row, j]
                relative = max(relative, np.float32(0))
                value = relative * background + np.sqrt(relative) * noise_scale * np.float32(grain[j])
                target_row[j] = out.dtype.type(min(max(value + half, np.float32(0)), full_scale))
