"""Noise and background of a scan, measured where no particle is visible."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float64]

LEVELS = 24
"""Levels of brightness between which the variance is compared."""
MIN_PIXELS = 500
"""Fewest pixels in a level: their mean variance is then known to 6 %."""
LARGE_PX = 6.0
"""Fewest pixels in a level: their mean variance is then known to 6 % or better."""


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """Sensor noise and background.

    The variance of a grey value is `read_variance + gain * grey`; `contrast_sd` is the standard deviation of
    one image's background in contrast; `neighbour_correlation` that between adjacent pixels.
    `background_grey` is the mean background, `background_sd` its relative variation between images.
    `field_sd` is the standard deviation, in contrast, of structure larger than 6 px that is no particle found:
    far out-of-focus ones; `field_length_x_px`, `field_length_y_px` are its correlation lengths.
    """

    read_variance: float
    gain: float
    contrast_sd: float
    neighbour_correlation: float
    background_grey: float
    background_sd: float
    field_sd: float
    field_length_x_px: float
    field_length_y_px: float

    def to_dict(self) -> dict[str, float]:
        """All fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> NoiseModel:
        """The inverse of `to_dict`."""
        return cls(**{name: float(fields[name]) for name in cls.__dataclass_fields__})


def photon_transfer(mean: FloatArray, variance: FloatArray) -> tuple[float, float]:
    """Read variance and gain from mean and variance (H, W) of grey values (photon transfer, Janesick 2007).

    A line through the means in levels of brightness. If the brightness hardly varies, only the sum is known; it is
    then attributed to the gain, as for pure shot noise.
    """
    grey, var = mean.ravel(), variance.ravel()
    edges = np.unique(np.quantile(grey, np.linspace(0, 1, LEVELS + 1)))
    place = np.clip(np.searchsorted(edges, grey, side="right") - 1, 0, max(len(edges) - 2, 0))
    levels = [
        index for index in range(max(len(edges) - 1, 1)) if np.count_nonzero(place == index) >= MIN_PIXELS
    ]
    x = np.array([grey[place == index].mean() for index in levels] or [grey.mean()])
    y = np.array([var[place == index].mean() for index in levels] or [var.mean()])
    typical = float(np.median(y))
    if len(x) < 4 or np.ptp(x) < 0.2 * x.max():
        return 0.0, typical / max(float(np.median(x)), 1e-9)
    gain, read = np.polyfit(x, y, 1)
    if gain < 0:
        return typical, 0.0
    return max(float(read), 0.0), float(gain)


def neighbour_correlation(difference: FloatArray) -> float:
    """Correlation of adjacent pixels along a row in the difference (H, W) of two images of one scene."""
    centred = difference - difference.mean()
    return float((centred[:, 1:] * centred[:, :-1]).mean() / max((centred**2).mean(), 1e-30))


def background_field(
    contrast: npt.NDArray[np.floating], free: npt.NDArray[np.bool_], noise_variance: float
) -> tuple[float, float, float]:
    """Standard deviation and correlation lengths (px, along x and y) of structure in an image (H, W).

    Only pixels that are `free` of particles count. White noise is subtracted; 0 where nothing remains.
    """
    if free.sum() < 2000:
        return 0.0, 0.0, 0.0
    sigma = LARGE_PX / 2
    image = np.where(free, contrast - np.median(contrast[free]), 0.0).astype(np.float64)
    weight = ndimage.gaussian_filter(free.astype(np.float64), sigma)
    smooth = ndimage.gaussian_filter(image, sigma) / np.maximum(weight, 0.2)
    inner = free & (weight > 0.9)
    if inner.sum() < 2000:
        return 0.0, 0.0, 0.0
    left = float(smooth[inner].var()) - noise_variance / (4 * np.pi * sigma**2)
    if left <= 0:
        return 0.0, 0.0, 0.0
    lengths = []
    for axis in (1, 0):
        length = 0.0
        for lag in range(2, 80):
            first = np.moveaxis(smooth, axis, 0)[lag:], np.moveaxis(inner, axis, 0)[lag:]
            second = np.moveaxis(smooth, axis, 0)[:-lag], np.moveaxis(inner, axis, 0)[:-lag]
            both = first[1] & second[1]
            if both.sum() < 500:
                break
            length = float(lag)
            if (first[0][both] * second[0][both]).mean() < left / np.e:
                break
        lengths.append(length)
    return float(np.sqrt(left)), lengths[0], lengths[1]
