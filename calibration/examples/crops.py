"""Crops of images, each with one object in its middle: files of crops, or places in an image where to cut."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from acquisition.recording import is_image, open_image, open_stack
from acquisition.stacks.stack import ImageStack
from calibration.errors import CalibrationError

FloatArray = npt.NDArray[np.float64]

LEAST_PX = 9
"""Side of the smallest crop: an object of 3 pixels, and 3 pixels of background around it."""


class At(NamedTuple):
    """The middle of an object in an image, px from the centre of its first pixel, and the image's number."""

    x_px: float
    y_px: float
    image: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """Grey values (H, W) of an image around an object, its name in messages, and where its first pixel is."""

    grey: FloatArray
    name: str
    left: int = 0
    top: int = 0


def read_crops(paths: Sequence[Path]) -> list[Crop]:
    """Every image of these files as one crop.

    Raises `SourceError` for a file that cannot be read, in colour, or with other pixels than whole numbers,
    `CalibrationError` for crops that are too small, or twice the same.
    """
    crops = []
    for path in paths:
        images = read_images(path)
        crops += [
            Crop(image, f"{path.name}" if len(images) == 1 else f"{path.name}, image {number}")
            for number, image in enumerate(images)
        ]
    for crop in crops:
        if min(crop.grey.shape) < LEAST_PX:
            height, width = crop.grey.shape
            raise CalibrationError(
                f"{crop.name} has {width} x {height} pixels; cut {LEAST_PX} x {LEAST_PX} or more, with the whole "
                "object and some background around it"
            )
    for one, other in combinations(crops, 2):
        if one.grey.shape == other.grey.shape and (one.grey == other.grey).all():
            raise CalibrationError(f"{one.name} and {other.name} are the same pixels; cut another object")
    return crops


def opened(path: Path) -> ImageStack:
    """A recording, or a single image of any type, opened. Raises `SourceError`."""
    return open_image(path) if is_image(path) else open_stack(path)


def read_images(path: Path, most: int | None = None) -> list[FloatArray]:
    """The images (H, W) of a file or folder, `most` of them at most, evenly spread; raises `SourceError`."""
    with closing(opened(path)) as stack:
        count = stack.info.planes
        chosen = (
            range(count) if most is None or count <= most else np.linspace(0, count - 1, most).astype(int)
        )
        return [stack.read(int(number)).image.astype(np.float64) for number in chosen]


def cut(image: FloatArray, at: At, size_px: int) -> Crop:
    """The crop of an image with this side (odd) around a place. Raises `CalibrationError` beyond its edge."""
    half = size_px // 2
    row, column = round(at.y_px), round(at.x_px)
    name = f"the crop at {at.x_px:g},{at.y_px:g}"
    height, width = image.shape
    if not (half <= row < height - half and half <= column < width - half):
        raise CalibrationError(
            f"{name} of {size_px} x {size_px} pixels reaches beyond the image of {width} x {height}; choose an "
            "object further from its edge"
        )
    part = image[row - half : row + half + 1, column - half : column + half + 1]
    return Crop(part, name, column - half, row - half)
