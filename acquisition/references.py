"""Reads bright and dark references from files: one image, or the mean of several, of any numeric type."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from acquisition.recording import open_stack
from acquisition.stacks.image_files import SUFFIXES, TIFF, read_single_image
from acquisition.stacks.library_errors import told_in_a_line
from acquisition.stacks.video_choice import file_of
from stream.bright_dark import checked_reference


def read_reference(
    path: Path, what: Literal["bright", "dark"]
) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """A reference (H, W), the mean of the images in a file or folder, and lines about what was changed in it.

    Raises `SourceError` if it cannot be read, `ConfigurationError` if it cannot be used.
    """
    return checked_reference(path, read_image(path), what)


def read_image(path: Path) -> npt.NDArray[np.float64]:
    """The mean (H, W) of the images in a file or folder, of any numeric type. Raises `SourceError`."""
    suffix = file_of(path).suffix.lower()
    if suffix in SUFFIXES and suffix not in TIFF and file_of(path).is_file():
        with told_in_a_line(f"cannot read {path}"):
            return read_single_image(path).astype(np.float64)
    stack = open_stack(path, any_type=True)
    try:
        total = np.zeros((stack.info.height, stack.info.width))
        for index in range(stack.info.planes):
            total += stack.read(index).image
        return total / stack.info.planes
    finally:
        stack.close()
