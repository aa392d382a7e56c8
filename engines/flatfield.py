"""Flat-field correction of bright-field images, equation (2) of Franchini & Krevor (2020).

I_corr = 1 - (I_raw - I_dark) / (s (I_bright - I_dark)): background near 1 - 1/s, particles bright.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from numba import njit

from stream.bright_dark import checked_reference
from stream.errors import ConfigurationError

log = logging.getLogger(__name__)

MOST_SQUEEZED = 2000
"""Largest ratio of image bytes to file bytes: deflate reaches 1032, LZW less than 1400; only a damaged
header claims more."""
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
    """Read the references from TIFF files of any numeric type; several images in a file are averaged.

    Corrections made to them are logged. Raises `ConfigurationError` for files and values that cannot be used.
    """
    light, remarks = checked_reference(bright, _read(bright), "bright")
    for remark in remarks:
        log.warning(remark)
    return FlatField(light, None if dark is None else checked_reference(dark, _read(dark), "dark")[0])


def _read(path: Path) -> npt.NDArray[np.float64]:
    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        with tifffile.TiffFile(path) as file:
            if not file.series:
                raise ConfigurationError(f"cannot read the flat-field reference {path}: it holds no images")
            series = file.series[0]
            shape, axes = tuple(series.shape), str(series.axes)
            claimed = math.prod(shape) * (1 if series.dtype is None else series.dtype.itemsize)
            if claimed > MOST_SQUEEZED * file.filehandle.size:
                raise ConfigurationError(
                    f"cannot read the flat-field reference {path}: it claims {claimed} bytes of images and has "
                    f"{file.filehandle.size}; it is damaged"
                )
            images = np.asarray(series.asarray())
    except ConfigurationError:
        raise
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConfigurationError(f"cannot read the flat-field reference {path}: {why}") from error
    finally:
        logger.disabled = before
    if images.dtype.kind not in "iufb":
        raise ConfigurationError(
            f"the flat-field reference {path} has {images.dtype.name} values; save real numbers"
        )
    sizes = dict(zip(axes, shape, strict=True))
    if sizes.get("S", 1) > 1 or sizes.get("C", 1) > 1:
        raise ConfigurationError(
            f"the flat-field reference {path} has colours or channels; save a grey image"
        )
    if images.ndim < 2 or "Y" not in sizes or "X" not in sizes:
        raise ConfigurationError(f"the flat-field reference {path} is not an image but an array of {shape}")
    stack = images.reshape(-1, sizes["Y"], sizes["X"])
    mean: npt.NDArray[np.float64] = stack.mean(axis=0, dtype=np.float64)
    return mean
