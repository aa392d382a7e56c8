"""The calibrated PSF model as the fit needs it: spline coefficients, extent at each depth, noise."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import h5py
import numpy as np
import numpy.typing as npt

from engines.bounded_reading import MOST_IMAGE_BYTES, MOST_TEXT_BYTES, refuse_beyond
from engines.refine.arguments import Float32Array, FloatArray, IntArray, Psf
from engines.refine.cells import LEAST_EXTENT_PX, FieldCells, extents
from engines.refine.field import FieldModel
from engines.refine.misfit import Misfit
from engines.refine.quantity import Quantity
from engines.refine.spline import TAPS
from stream.errors import ConfigurationError
from stream.hdf5_reading import check_file, values

MOST_BYTES = 1 << 30
"""No part of a calibration that is read at once is larger."""
FEWEST_NODES = 4
"""Depths that a cubic spline needs."""
MOST_MODES = 32
"""Modes of a field model that are read; calibrations find a few."""
LARGEST_SURFACE_UM = 1e5
"""Far beyond any focal surface: a damaged file."""
LARGEST_WALK = 0.5
"""Part of its distance from the middle by which a particle may walk over the depths; 0.02 is much."""
LARGEST_CONTRAST = 1e9
"""Far above any contrast, far below what overflows in single precision: what is larger is a damaged file."""
MOST_DARK = 0.8
"""Part of a background that may be a camera's offset: beside more of it, light is too little to say how even it
is."""
TYPICAL_BRIGHTNESS_SD = 0.1
"""Relative scatter of the brightness where a calibration does not give it: that of beads whose diameters scatter by
3 to 5 %. It only bounds what counts as a typical brightness, `typical.SPREAD_FACTOR`."""


@dataclass(frozen=True, slots=True, eq=False)
class FitModel:
    """What a particle of brightness 1 looks like, as contrast, and how noisy images of it are.

    `coefficients` (J, P, P) are those of the cubic B-spline on nodes `z_first_um + j * z_step_um` and whole pixels,
    P odd; it is valid from `z_min_um` to `z_max_um`. `extent_px` (J, 2): pixels from the centre that a fit looks
    at, along y and x. `peak` (J,) is the image's greatest contrast. The variance of the contrast is `read`
    + `shot` x relative brightness; only their ratio counts where the noise is measured on each frame. `read` may be
    less than 0, as a camera's offset has no noise. Where the background's light is not known, `growth` says how the
    variance grows instead: in variances of the background, for a contrast of one of its standard deviations; it is
    1 over that standard deviation in photoelectrons, whatever the offset and the gain.
    `brightness_sd` is the standard deviation of the particles' brightness around 1. `sigma_scale` is the factor by
    which standard errors of x, y and z exceed those from noise alone, as real particles are not all alike.
    `field` is what changes over the field of view: depths and places are then local ones (`refine.field`).
    `misfit` are variances beyond those of the noise, found by cross-validation. `cells` are for the kernels. Where
    the model's depth is not that of particles, `quantity` says what it is. Where light multiplies what particles
    take away or add, as in brightfield, `dark_grey` is the grey value without light; None where they add to it.
    """

    coefficients: Float32Array
    z_first_um: float
    z_step_um: float
    z_min_um: float
    z_max_um: float
    pixel_size_um: float
    polarity: Literal["dark", "bright"]
    read: float
    shot: float
    brightness_sd: float
    sigma_scale: tuple[float, float, float]
    extent_px: IntArray
    peak: FloatArray
    cells: FieldCells
    field: FieldModel | None = None
    misfit: Misfit | None = None
    quantity: Quantity | None = None
    growth: float | None = None
    dark_grey: float | None = None

    @classmethod
    def of(
        cls,
        coefficients: Float32Array,
        z_first_um: float,
        z_step_um: float,
        z_range_um: tuple[float, float],
        *,
        pixel_size_um: float,
        polarity: Literal["dark", "bright"],
        read: float = 0.0,
        shot: float = 1.0,
        brightness_sd: float = TYPICAL_BRIGHTNESS_SD,
        sigma_scale: tuple[float, float, float] = (1.0, 1.0, 1.0),
        field: FieldModel | None = None,
        misfit: Misfit | None = None,
        quantity: Quantity | None = None,
        growth: float | None = None,
        dark_grey: float | None = None,
        extent_px: npt.ArrayLike | None = None,
    ) -> FitModel:
        """The model of these coefficients; by default all noise is that of the light, and the extent that of the
        object's light.

        Raises `ValueError` for numbers that no PSF model can have.
        """
        z_min_um, z_max_um = z_range_um
        numbers = [z_first_um, z_step_um, z_min_um, z_max_um, pixel_size_um, read, shot, brightness_sd]
        _check(
            coefficients,
            [*numbers, *sigma_scale, *(each for each in (growth, dark_grey) if each is not None)],
        )
        last_um = z_first_um + z_step_um * (len(coefficients) - 1)
        if not (z_step_um > 0 and pixel_size_um > 0 and z_first_um <= z_min_um < z_max_um <= last_um):
            raise ValueError(
                f"depths from {z_min_um} to {z_max_um} on nodes from {z_first_um} to {last_um}, {z_step_um} apart, "
                f"pixels of {pixel_size_um} um"
            )
        grows = 0.0 if growth is None else growth
        dark = 0.0 if dark_grey is None else dark_grey
        if not (min(shot, brightness_sd, grows, dark) >= 0 and read + shot > 0 and min(sigma_scale) > 0):
            raise ValueError(
                f"noise {read}, {shot}, {grows}, dark {dark}, brightness {brightness_sd}, scales {sigma_scale}"
            )
        if field is not None:
            check_field(field, coefficients, max(abs(z_min_um), abs(z_max_um)))
        of_light, peak = extents(coefficients)
        extent = of_light if extent_px is None else np.array(extent_px, np.int64)
        most = coefficients.shape[1] // 2
        if extent.shape != of_light.shape or extent.min() < LEAST_EXTENT_PX or extent.max() > most:
            raise ValueError(f"an extent of {extent.shape} values for coefficients of {coefficients.shape}")
        mean = np.ascontiguousarray(coefficients, np.float32)
        return cls(
            mean,
            z_first_um,
            z_step_um,
            *z_range_um,
            pixel_size_um,
            polarity,
            read,
            shot,
            brightness_sd,
            sigma_scale,
            extent,
            peak,
            FieldCells(mean, extent, field),
            field,
            misfit,
            quantity,
            growth,
            dark_grey,
        )

    @property
    def twins(self) -> FloatArray:
        """The most similar other depth of each node (J, 2), of `twins.twins_of`; made when first asked for."""
        return self.cells.twins()

    def variance_of(self, measured: float) -> tuple[float, float]:
        """Variance (read, shot) of the contrast, where that of the background is `measured`."""
        if self.growth is not None:
            shot = self.growth * math.sqrt(measured)
            return measured - shot, shot
        level = measured / (self.read + self.shot)
        return self.read * level, self.shot * level

    def light_gain(self, background_grey: float) -> float:
        """By how much light differs from that of the median, over how much the background differs from its median,
        of `background_grey`; 0 where light does not multiply particles."""
        if self.dark_grey is None:
            return 0.0
        return 1.0 / (1.0 - min(self.dark_grey / background_grey, MOST_DARK))

    def for_kernels(self, shape: tuple[int, ...] | None = None) -> Psf:
        """The model as the kernels take it, with work space of its own: one for each thread.

        `shape` (H, W) is that of the images, by default the field model's; see `origin_px`.
        """
        size = int(self.coefficients.shape[1])
        cells = self.cells.get()
        return Psf(
            self.coefficients,
            float(self.z_first_um),
            float(self.z_step_um),
            float(self.z_min_um),
            float(self.z_max_um),
            cells.extent_px,
            cells.modes,
            cells.weights,
            cells.rows,
            cells.columns,
            cells.cell_px,
            cells.bright,
            self.origin_px(shape),
            *self.cells.planes(),
            np.zeros(1, np.int64),
            np.zeros((5, (size + TAPS) ** 2), np.float32),
            np.zeros((4, (size + TAPS) ** 2), np.float32),
            np.zeros((0, 0), np.float32),
            np.zeros(2),
        )

    def origin_px(self, shape: tuple[int, ...] | None) -> FloatArray:
        """Where an image of `shape` (H, W) begins in the calibrated field, rows and columns (2,), px.

        An image of another size than the calibration's is taken as a region of interest around the same middle.
        """
        known = self.field.shape if self.field is not None else None
        known = self.misfit.shape if known is None and self.misfit is not None else known
        if known is None or shape is None:
            return np.zeros(2)
        return np.array([(known[0] - shape[0]) / 2, (known[1] - shape[1]) / 2])

    def peak_at(self, z_um: npt.ArrayLike) -> FloatArray:
        """Greatest contrast (N,) of the image at depths (N,)."""
        nodes = self.z_first_um + self.z_step_um * np.arange(self.peak.size)
        return np.asarray(np.interp(np.asarray(z_um, np.float64), nodes, self.peak), np.float64)


def _check(coefficients: Float32Array, numbers: list[float]) -> None:
    if not np.isfinite(numbers).all():
        raise ValueError(f"{numbers} must be finite numbers")
    shape = coefficients.shape
    square = len(shape) == 3 and shape[1] == shape[2] and shape[1] % 2 == 1
    if not square or shape[0] < FEWEST_NODES or shape[1] <= 2 * LEAST_EXTENT_PX:
        raise ValueError(f"a PSF model of shape {shape}")
    if not (np.isfinite(coefficients).all() and np.abs(coefficients).max() < LARGEST_CONTRAST):
        raise ValueError(f"contrasts that are not finite or above {LARGEST_CONTRAST:g}")


def check_field(field: FieldModel, coefficients: Float32Array, depth_um: float) -> None:
    """Raises `ValueError` for a field model that does not fit the spline (J, P, P), or changes too much."""
    modes = field.modes.shape
    if modes[0] > MOST_MODES or (modes[0] and modes[1:] != coefficients.shape):
        raise ValueError(f"modes of shape {modes} for a PSF model of {coefficients.shape}")
    with np.errstate(over="ignore"):
        largest = np.abs(field.modes).max(axis=(1, 2, 3), initial=0.0)
        b = max(1.0, *np.abs(field.brightness_range)) ** field.brightness_degree
        reach = np.abs(field.weights).sum(axis=1) * largest * b
        surface, walk = np.abs(field.surface_um).sum(), np.abs(field.walk_per_um).sum(axis=1).max() * depth_um
    if not (reach < LARGEST_CONTRAST).all():
        raise ValueError(f"contrasts over the field above {LARGEST_CONTRAST:g}")
    if not (surface < LARGEST_SURFACE_UM and walk < LARGEST_WALK):
        raise ValueError(f"a focal surface of {surface:g} um, a walk of {walk:g} of the distance")


def load_fit_model(path: Path) -> FitModel | None:
    """The PSF model of a calibration file; None where the file holds only a width curve.

    Raises `ConfigurationError` where the file is damaged.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            check_file(file, most_bytes=MOST_BYTES, in_pieces=("traces",))
            if "model/coefficients" not in file:
                return None
            group, noise = file["model"], dict(file["noise"].attrs)
            grey = float(noise["background_grey"])
            scatter = _scatter(file["particles"]) if "particles" in file else TYPICAL_BRIGHTNESS_SD
            return FitModel.of(
                values(group, "coefficients", ndim=3, most_bytes=MOST_IMAGE_BYTES).astype(np.float32),
                float(group.attrs["z_first_um"]),
                float(group.attrs["z_step_um"]),
                (float(group.attrs["z_min_um"]), float(group.attrs["z_max_um"])),
                pixel_size_um=float(file.attrs["pixel_size_um"]),
                polarity=cast(Literal["dark", "bright"], file.attrs["polarity"]),
                read=float(noise["read_variance"]) / grey**2,
                shot=float(noise["gain"]) / grey,
                brightness_sd=scatter,
                field=_field(group),
                misfit=Misfit.of_numbers(_json(group, "misfit")) if "misfit" in group else None,
            )
    except (
        OSError,
        RuntimeError,
        LookupError,
        ValueError,
        TypeError,
        ArithmeticError,
        AttributeError,
        RecursionError,
    ) as error:
        raise ConfigurationError(f"cannot read the PSF model in {path} ({error}); calibrate again") from error


def _field(model: h5py.Group) -> FieldModel | None:
    if "field" not in model:
        return None
    modes = values(model, "field/modes", ndim=4, most_bytes=MOST_IMAGE_BYTES).astype(np.float32)
    return FieldModel.of_numbers(_json(model, "field/numbers"), modes)


def _json(group: h5py.Group, name: str) -> Any:
    return json.loads(str(values(group, name, ndim=0, kinds="O", most_bytes=MOST_TEXT_BYTES)))


def _scatter(particles: h5py.Group) -> float:
    """Standard deviation of the brightness of the particles that a calibration used."""
    for name in ("reason", "brightness"):
        refuse_beyond(particles[name].size * max(1, particles[name].dtype.itemsize), MOST_IMAGE_BYTES, name)
    used = particles["reason"].asstr()[:] == ""
    bright = particles["brightness"][:][used]
    return float(np.std(bright)) if bright.size > 1 else TYPICAL_BRIGHTNESS_SD
