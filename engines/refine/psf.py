"""The calibrated PSF model as the fit needs it: spline coefficients, extent at each depth, noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import h5py
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from engines.bounded_reading import MOST_IMAGE_BYTES, refuse_beyond
from engines.refine.arguments import Float32Array, FloatArray, IntArray, Psf
from engines.refine.spline import TAPS
from stream.errors import ConfigurationError
from stream.hdf5_reading import check_file, values

MOST_BYTES = 1 << 30
"""No part of a calibration that is read at once is larger."""
ENERGY_LEFT_OUT = 0.001
"""Part of the squared contrast of an image that may lie beyond its extent on either axis. Less makes larger
rectangles, which take longer; more loses precision."""
LEAST_EXTENT_PX = 5
"""px from the centre that a fit looks at in any case: four parameters and a plane need some background around."""
FEWEST_NODES = 4
"""Depths that a cubic spline needs."""
LARGEST_CONTRAST = 1e9
"""Far above any contrast, far below what overflows in single precision: what is larger is a damaged file."""
TYPICAL_BRIGHTNESS_SD = 0.1
"""Relative scatter of the brightness where a calibration does not give it: that of beads whose diameters scatter by
3 to 5 %. It only bounds what counts as a typical brightness, `typical.SPREAD_FACTOR`."""
SMOOTHING = np.array([1.0, 4.0, 1.0]) / 6.0
"""Cubic B-spline at the nodes -1, 0, 1: from coefficients to values on pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class FitModel:
    """What a particle of brightness 1 looks like, as contrast, and how noisy images of it are.

    `coefficients` (J, P, P) are those of the cubic B-spline on nodes `z_first_um + j * z_step_um` and whole pixels,
    P odd; it is valid from `z_min_um` to `z_max_um`. `extent_px` (J, 2): pixels from the centre that a fit looks
    at, along y and x. `peak` (J,) is the image's greatest contrast. The variance of the contrast is `read`
    + `shot` x relative brightness; only their ratio counts where the noise is measured on each frame.
    `brightness_sd` is the standard deviation of the particles' brightness around 1. `sigma_scale` is the factor by
    which standard errors of x, y and z exceed those from noise alone, as real particles are not all alike.
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
    ) -> FitModel:
        """The model of these coefficients; by default all noise is that of the light.

        Raises `ValueError` for numbers that no PSF model can have.
        """
        z_min_um, z_max_um = z_range_um
        numbers = [z_first_um, z_step_um, z_min_um, z_max_um, pixel_size_um, read, shot, brightness_sd]
        _check(coefficients, [*numbers, *sigma_scale])
        last_um = z_first_um + z_step_um * (len(coefficients) - 1)
        if not (z_step_um > 0 and pixel_size_um > 0 and z_first_um <= z_min_um < z_max_um <= last_um):
            raise ValueError(
                f"depths from {z_min_um} to {z_max_um} on nodes from {z_first_um} to {last_um}, {z_step_um} apart, "
                f"pixels of {pixel_size_um} um"
            )
        if not (min(read, shot, brightness_sd) >= 0 and read + shot > 0 and min(sigma_scale) > 0):
            raise ValueError(f"noise {read}, {shot}, brightness {brightness_sd}, scales {sigma_scale}")
        extent_px, peak = _extents(coefficients)
        return cls(
            np.ascontiguousarray(coefficients, np.float32),
            z_first_um,
            z_step_um,
            *z_range_um,
            pixel_size_um,
            polarity,
            read,
            shot,
            brightness_sd,
            sigma_scale,
            extent_px,
            peak,
        )

    def for_kernels(self) -> Psf:
        """The model as the kernels take it, with work space of its own: one for each thread."""
        size = int(self.coefficients.shape[1])
        return Psf(
            self.coefficients,
            float(self.z_first_um),
            float(self.z_step_um),
            float(self.z_min_um),
            float(self.z_max_um),
            self.extent_px,
            np.empty((5, size + TAPS, size + TAPS), np.float32),
            np.empty((4, size, size), np.float32),
        )

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


def _extents(coefficients: Float32Array) -> tuple[IntArray, FloatArray]:
    half = coefficients.shape[1] // 2
    extent = np.empty((len(coefficients), 2), np.int64)
    peak = np.empty(len(coefficients))
    offset = np.abs(np.arange(-half, half + 1))
    for j, plane in enumerate(coefficients):
        image = ndimage.convolve1d(ndimage.convolve1d(plane, SMOOTHING, axis=0), SMOOTHING, axis=1)
        peak[j] = image.max()
        for axis in (0, 1):
            energy = np.bincount(offset, (image.astype(np.float64) ** 2).sum(axis=1 - axis))
            beyond = 1.0 - np.cumsum(energy) / max(energy.sum(), 1e-300)
            extent[j, axis] = int(np.argmax(beyond <= ENERGY_LEFT_OUT)) + 1
    extent = ndimage.maximum_filter1d(extent, 3, axis=0)
    return np.clip(extent, LEAST_EXTENT_PX, half), peak


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
            )
    except (
        OSError,
        RuntimeError,
        LookupError,
        ValueError,
        TypeError,
        ArithmeticError,
        AttributeError,
    ) as error:
        raise ConfigurationError(
            f"cannot read the PSF model in {path} ({error}); calibrate again, or set detector.refine off"
        ) from error


def _scatter(particles: h5py.Group) -> float:
    """Standard deviation of the brightness of the particles that a calibration used."""
    for name in ("reason", "brightness"):
        refuse_beyond(particles[name].size * max(1, particles[name].dtype.itemsize), MOST_IMAGE_BYTES, name)
    used = particles["reason"].asstr()[:] == ""
    bright = particles["brightness"][:][used]
    return float(np.std(bright)) if bright.size > 1 else TYPICAL_BRIGHTNESS_SD
