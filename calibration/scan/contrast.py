"""From grey values to contrast: flat field (eq. 2 of Franchini & Krevor 2020), lamp drift, sensor noise.

Contrast is the particle's part of the background's brightness, positive for either polarity: (B - I) / B for
dark particles, (I - B) / B0 for bright ones, where B0 is one number, since there may be hardly any background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from calibration.errors import CalibrationError
from calibration.scan.planes import FocusScan
from engines.robust_sigma import SIGMA_OF_MAD

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
Polarity = Literal["dark", "bright"]

BLOCK_PX = 16
"""Side of the blocks whose medians make the background, px: larger than a focused particle, smaller than the
lamp's structures."""
SMOOTH_BLOCKS = 9
"""Blocks over which the residual is smoothed, three standard deviations of the Gaussian."""
DEGREE = 4
"""Degree of the polynomial; vignetting is of fourth degree."""
OUTLIER = 2.5
"""Standard deviations beyond which a block contains particles and does not count."""


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """What an image shows without particles: `light` and `dark` (H, W) in grey values, `light` above `dark`.

    `scale` is contrast 1 in grey values, `source` says where the background comes from.
    """

    light: Float32Array
    dark: Float32Array
    polarity: Polarity
    scale: float
    source: str

    def contrast(self, images: npt.NDArray[Any], gain: float = 1.0) -> Float32Array:
        """Mean contrast (H, W) of images (R, H, W) of one scene; `gain` is the lamp's brightness."""
        mean = images.mean(axis=0, dtype=np.float32) - self.dark
        if self.polarity == "dark":
            return np.asarray(1.0 - mean / (gain * self.light), np.float32)
        return np.asarray((mean - gain * self.light) / self.scale, np.float32)

    def contrast_variance(self, grey: FloatArray) -> FloatArray:
        """A variance (H, W) of grey values as one of contrast."""
        scale = self.light.astype(np.float64) if self.polarity == "dark" else self.scale
        variance: FloatArray = grey / scale**2
        return variance


def smooth_background(mean: FloatArray) -> FloatArray:
    """The brightness (H, W) behind the particles of an image (H, W) that is the mean of all planes.

    Medians of blocks of 16 x 16 pixels, without those that contain particles. A polynomial through these describes
    lamp and lens; the residual is smoothed over 9 x 9 blocks and added.
    """
    height, width = mean.shape
    rows, columns = max(1, height // BLOCK_PX), max(1, width // BLOCK_PX)
    cut = mean[: rows * (height // rows), : columns * (width // columns)]
    blocks = cut.reshape(rows, height // rows, columns, width // columns)
    level = np.median(blocks, axis=(1, 3))
    y = (np.arange(height) + 0.5) / (height // rows) - 0.5
    x = (np.arange(width) + 0.5) / (width // columns) - 0.5
    trend = _Polynomial(level)
    left = level - trend(np.arange(rows), np.arange(columns))
    weight = np.ones_like(level)
    for _ in range(4):
        off = left - _smooth(left, weight)
        scatter = SIGMA_OF_MAD * float(np.median(np.abs(off[weight > 0]))) + 1e-12
        weight = (np.abs(off) < OUTLIER * scatter).astype(np.float64)
    grid = np.meshgrid(y, x, indexing="ij")
    rest = ndimage.map_coordinates(_smooth(left, weight), grid, order=1, mode="nearest")
    full: FloatArray = trend(y, x) + rest
    return full


class _Polynomial:
    """A polynomial of fourth degree (or less, for few blocks) through blocks (M, N), outliers left out."""

    def __init__(self, level: FloatArray) -> None:
        rows, columns = level.shape
        self._scale = max(rows - 1, 1), max(columns - 1, 1)
        degree = min(DEGREE, rows - 1, columns - 1)
        self._terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
        design = self._design(np.arange(rows), np.arange(columns))
        values, kept = level.ravel(), np.ones(level.size, np.bool_)
        for _ in range(8):
            self._solution, *_ = np.linalg.lstsq(design[kept], values[kept], rcond=None)
            off = values - design @ self._solution
            scatter = SIGMA_OF_MAD * float(np.median(np.abs(off[kept]))) + 1e-12
            kept = np.abs(off) < 2 * OUTLIER * scatter

    def _design(self, row: npt.NDArray[Any], column: npt.NDArray[Any]) -> FloatArray:
        y, x = 2 * row / self._scale[0] - 1, 2 * column / self._scale[1] - 1
        return np.stack([np.outer(y**j, x**i).ravel() for i, j in self._terms], axis=1)

    def __call__(self, row: npt.NDArray[Any], column: npt.NDArray[Any]) -> FloatArray:
        """Its values (M, N) at rows (M,) and columns (N,) of the blocks."""
        y, x = 2 * row / self._scale[0] - 1, 2 * column / self._scale[1] - 1
        value = np.zeros((row.size, column.size))
        for factor, (i, j) in zip(self._solution, self._terms, strict=True):
            value += factor * np.outer(y**j, x**i)
        return value


def _smooth(level: FloatArray, weight: FloatArray) -> FloatArray:
    sigma = SMOOTH_BLOCKS / 3
    top = ndimage.gaussian_filter(level * weight, sigma, mode="nearest")
    bottom = ndimage.gaussian_filter(weight, sigma, mode="nearest")
    smooth: FloatArray = np.where(bottom > 1e-3, top / np.maximum(bottom, 1e-3), np.median(level))
    return smooth


def lamp_gains(scan: FocusScan, used: list[tuple[int, ...]]) -> FloatArray:
    """Brightness of each plane's used images over the median of all planes, (K,)."""
    level = np.array([np.median([scan.facts[image].median for image in images]) for images in used])
    level = np.maximum(level, 1e-9)
    gains: FloatArray = level / np.median(level)
    # a median of whole grey values steps; only what is larger than such a step is the lamp
    steps = 1.5 / float(np.median(level))
    return gains if np.ptp(gains) > 3 * steps else np.ones_like(gains)


@dataclass(frozen=True, slots=True, eq=False)
class ScanSums:
    """One pass through a scan: `mean` (H, W) of all planes, in grey values.

    `variance` (H, W) is that of single images about their plane's mean, averaged over planes: the noise;
    `change` (H, W) is the variance of the planes' means, the noise left in them taken off.
    """

    mean: FloatArray
    variance: FloatArray
    change: FloatArray


def add_up(
    scan: FocusScan,
    used: list[tuple[int, ...]],
    gains: FloatArray,
    on_progress: Callable[[float], None] = lambda _: None,
) -> ScanSums:
    """Read all planes once. Raises `CalibrationError` where no plane has two images to measure the noise from."""
    count = len(used)
    total, squares = np.zeros((2, *scan.shape), np.float64)
    left_over = 0.0
    variance = np.zeros(scan.shape, np.float64)
    degrees = 0
    for number, images in enumerate(used):
        stack = scan.read(images).astype(np.float32) / np.float32(gains[number])
        mean = stack.mean(axis=0)
        total += mean
        squares += mean**2
        left_over += 1 / len(images)
        if len(images) > 1:
            variance += ((stack - mean) ** 2).sum(axis=0)
            degrees += len(images) - 1
        on_progress((number + 1) / count)
    if not degrees:
        raise CalibrationError(
            "every plane has a single image, so the noise cannot be measured; take at least 2 (better 4) images at "
            "each focus, or say with --repeats how many there are"
        )
    variance /= degrees
    change = squares / count - (total / count) ** 2 - variance * left_over / count
    return ScanSums(mean=total / count, variance=variance, change=change)


def make_background(
    mean: FloatArray,
    polarity: Polarity,
    *,
    bright: FloatArray | None = None,
    dark: FloatArray | None = None,
) -> Background:
    """The background from references (H, W), or without a bright one from the scan's mean.

    Raises `CalibrationError` for references that do not fit the scan.
    """
    none = np.zeros_like(mean) if dark is None else dark
    for name, image in (("bright", bright), ("dark", dark)):
        if image is not None and image.shape != mean.shape:
            raise CalibrationError(
                f"the {name} reference is {image.shape} but the scan {mean.shape}; take both with the same camera "
                "settings"
            )
    if bright is not None:
        level = smooth_background(mean - none)
        light = bright - none
        # the lamp may have changed since: the particles leave most of the image as it is
        light = light * float(np.median(level) / np.median(light)) if np.median(light) > 0 else light
        source = "bright reference"
    else:
        light = smooth_background(mean - none)
        source = "the scan itself, smoothed"
    low = int(np.sum(light <= 0))
    if polarity == "dark" and low:
        raise CalibrationError(
            f"the background is not brighter than the dark reference in {low} pixels; are bright and dark swapped?"
        )
    scale = max(float(np.median(light)), 1.0)
    return Background(light.astype(np.float32), none.astype(np.float32), polarity, scale, source)
