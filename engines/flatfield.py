"""Flat-field correction of bright-field images, equation (2) of Franchini & Krevor (2020).

I_corr = 1 - (I_raw - I_dark) / (s (I_bright - I_dark)): background near 1 - 1/s, particles bright.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from stream.bright_dark import checked_reference
from stream.errors import ConfigurationError
from stream.reference_files import read_reference_file

log = logging.getLogger(__name__)

Float32Array = npt.NDArray[np.float32]


@njit(cache=True, nogil=True, fastmath=True)
def _correct(image: Any, dark: Float32Array, factor: Float32Array, out: Float32Array) -> None:
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            out[row, column] = (
                np.float32(1) - (np.float32(image[row, column]) - dark[row, column]) * factor[row, column]
            )


class FlatField:
    """References of a microscope, ready to correct its images.

    `bright` (H, W) is the background without particles, `dark` (H, W) the image without light (left out: 0),
    `gain` the s of equation (2). Raises `ConfigurationError` where the references do not fit one another.
    `dark` and `factor`, 1 / (s (bright - dark)), are (H, W) float32; `grey_values` is the mean of 1 / `factor`.
    """

    def __init__(
        self, bright: npt.NDArray[Any], dark: npt.NDArray[Any] | None = None, gain: float = 1.0
    ) -> None:
        light = np.asarray(bright, dtype=np.float64)
        none = np.zeros_like(light) if dark is None else np.asarray(dark, dtype=np.float64)
        if light.ndim != 2:
            raise ConfigurationError(f"the bright reference must be one image, not of shape {light.shape}")
        if none.shape != light.shape:
            raise ConfigurationError(
                f"the dark reference is {none.shape} but the bright one {light.shape}; use one camera"
            )
        if not (np.isfinite(light).all() and np.isfinite(none).all()):
            raise ConfigurationError("a flat-field reference has values that are not numbers; take it again")
        span = light - none
        bad = int((span <= 0).sum())
        if bad:
            raise ConfigurationError(
                f"the bright reference is not brighter than the dark one in {bad} pixels; are they swapped?"
            )
        if not gain > 0:
            raise ConfigurationError(f"the gain of the flat field must be positive, not {gain:g}")
        self.shape: tuple[int, int] = light.shape
        self.grey_values = float(gain * span.mean())
        self.dark = none.astype(np.float32)
        self.factor = (1.0 / (gain * span)).astype(np.float32)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise `ConfigurationError` where images of this shape are not those of the references."""
        if shape != self.shape:
            raise ConfigurationError(
                f"the flat-field references are {self.shape} but the images are {shape}; "
                "take them with the same camera settings"
            )

    def correct(self, image: npt.NDArray[Any], out: Float32Array) -> None:
        """Fill `out` (H, W) with the corrected image; `image` is uint8 or uint16 of the references' shape."""
        self.check(image.shape)
        _correct(image, self.dark, self.factor, out)


def load_flat_field(bright: Path, dark: Path | None) -> FlatField:
    """Read the references from files (`stream.reference_files`); several images in a file are averaged.

    Corrections made to them are logged. Raises `ConfigurationError` for files and values that cannot be used.
    """
    light, remarks = checked_reference(bright, read_reference_file(bright), "bright")
    for remark in remarks:
        log.warning(remark)
    if dark is None:
        return FlatField(light)
    return FlatField(light, checked_reference(dark, read_reference_file(dark), "dark")[0])
