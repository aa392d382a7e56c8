"""Reads bright and dark references from files: one image, or the mean of several, of any numeric type."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from acquisition.recording import open_stack
from stream.bright_dark import checked_reference
from stream.reference_files import can_read, read_reference_file


def read_reference(
    path: Path, what: Literal["bright", "dark"]
) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """A reference (H, W), the mean of the images in a file or folder, and lines about what was changed in it.

    Raises `SourceError` or `ConfigurationError` if it cannot be read, `ConfigurationError` if it cannot be used.
    """
    return checked_reference(path, read_image(path), what)


def read_image(path: Path) -> npt.NDArray[np.float64]:
    """The mean (H, W) of the images in a file or folder, of any numeric type.

    OME-Zarr, NDTiff, and one of several recordings (`FOLDER::position=1`) are read as recordings are, everything
    else as the detector reads its references. Raises `SourceError` or `ConfigurationError`.
    """
    if can_read(path):
        return read_reference_file(path)
    stack = open_stack(path, any_type=True)
    try:
        total = np.zeros((stack.info.height, stack.info.width))
        for index in range(stack.info.planes):
            total += stack.read(index).image
        return total / stack.info.planes
    finally:
        stack.close()
