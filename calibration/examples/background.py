"""What is behind the objects in a user's own images: what stays as it is, or else the uneven light."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from acquisition.recording import open_stack
from calibration.errors import CalibrationError
from calibration.examples.crops import read_images

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

FEWEST_IMAGES = 8
"""Images from which on their median shows what stays: an object must not be in half of them at one place."""
MOST_IMAGES = 60
"""Images that are read, evenly spread over the recording: of more the median is hardly better."""
WIDE = 3.0
"""Side of the median filter that leaves only uneven light, over the reach of the largest object on both sides."""
COARSE = 4
"""The filter's side from which every such pixel is enough for it, over this number."""


def behind_of(path: Path, reach_px: float) -> Float32Array:
    """Contrast (1, H, W) of what stays in the images of a recording; of few images, their uneven light (K, H, W).

    Raises `SourceError` for a recording that cannot be read, `CalibrationError` for one without light.
    """
    images = read_images(path, MOST_IMAGES)
    if len(images) < FEWEST_IMAGES:
        return np.stack([_contrast(_light(image, reach_px), path) for image in images])
    return _contrast(np.median(images, axis=0), path)[None]


def light_of(path: Path, numbers: Sequence[int], reach_px: float) -> Float32Array:
    """Contrast (K, H, W) of the uneven light in some images of a recording; raises what `behind_of` raises."""
    with closing(open_stack(path)) as stack:
        images = [stack.read(number).image.astype(np.float64) for number in numbers]
    return np.stack([_contrast(_light(image, reach_px), path) for image in images])


def _light(image: FloatArray, reach_px: float) -> FloatArray:
    """The image without objects: its median over a square three times as wide as they are."""
    side = WIDE * 2 * reach_px
    step = max(1, int(side / (4 * COARSE)))
    coarse = ndimage.median_filter(image[::step, ::step], size=max(3, round(side / step)), mode="reflect")
    rows, columns = (np.arange(size) / step for size in image.shape)
    at = np.meshgrid(rows, columns, indexing="ij")
    found: FloatArray = ndimage.map_coordinates(coarse, at, order=1, mode="nearest")
    return found


def _contrast(image: FloatArray, path: Path) -> Float32Array:
    light = float(np.median(image))
    if light < 1.0:
        raise CalibrationError(
            f"{path} has no light: its median is below one grey value; add the camera's offset again"
        )
    return (image / light - 1.0).astype(np.float32)
