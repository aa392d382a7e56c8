"""A folder of images as a stack, in natural order of the names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from acquisition.stacks.stack import Plane, StackInfo, check_pixels
from stream.errors import SourceError

TIFF = (".tif", ".tiff")
SUFFIXES = (*TIFF, ".png", ".bmp", ".jpg", ".jpeg", ".pgm")


class FolderStack:
    """One image a file; all must have the size and pixel type of the first."""

    damage = ""

    def __init__(self, folder: Path) -> None:
        """List the folder. Raises `SourceError` if there are no images, or images of several kinds, in it."""
        self._files = sorted(
            (
                path
                for path in folder.iterdir()
                if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
            ),
            key=natural_key,
        )
        if not self._files:
            raise SourceError(f"there are no images in {folder} ({', '.join(SUFFIXES)})")
        kinds = {_kind(path) for path in self._files}
        if len(kinds) > 1:
            raise SourceError(f"{folder} has images of several kinds ({', '.join(sorted(kinds))}); keep one")
        first = _pixels(self._files[0])
        self.info = StackInfo(
            planes=len(self._files),
            height=first.shape[0],
            width=first.shape[1],
            dtype=check_pixels(self._files[0], first.dtype),
            format=f"folder of {kinds.pop()} images",
        )

    def read(self, index: int) -> Plane:
        """Image `index`. Raises `SourceError` if it cannot be read or differs from the first."""
        path = self._files[index]
        image = _pixels(path)
        if (
            image.shape != (self.info.height, self.info.width)
            or check_pixels(path, image.dtype) != self.info.dtype
        ):
            raise SourceError(
                f"{path} (frame {index}) is {image.shape} {image.dtype}, the first image was "
                f"({self.info.height}, {self.info.width}) {self.info.dtype}; remove it or convert it"
            )
        return Plane(np.ascontiguousarray(image, self.info.dtype))

    def close(self) -> None:
        """Nothing is held open."""


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """A key that sorts `image10` behind `image9`."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdigit() else (1, part.lower()) for part in parts if part]


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    return ".tif" if suffix in TIFF else ".jpg" if suffix == ".jpeg" else suffix


def _pixels(path: Path) -> npt.NDArray[Any]:
    try:
        if path.suffix.lower() in TIFF:
            image = np.asarray(tifffile.imread(path))
        else:
            with Image.open(path) as picture:
                image = np.asarray(picture)
    except Exception as error:
        raise SourceError(
            f"cannot read {path}: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error
    if image.ndim == 3 and image.shape[2] in {3, 4}:
        raise SourceError(f"{path} is a colour image; convert it to grey")
    if image.ndim != 2:
        raise SourceError(
            f"{path} holds {image.shape} values, not one image; give the file itself, not its folder"
        )
    return image
