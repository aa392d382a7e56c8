"""The protocol of an image file that is being recorded: images are appended, then committed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stream.messages import FrameInfo, ImageArray


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What all images of a recording share: shape (H, W) or (Z, H, W), type, scales, and where they are from.

    `z_step_um` is the nominal distance of the slices of a volume, NaN of an image.
    """

    shape: tuple[int, ...]
    dtype: str
    pixel_size_um: float
    frame_rate_hz: float
    run_id: str
    name: str
    description: str = ""
    z_step_um: float = math.nan

    @property
    def nbytes(self) -> int:
        """Bytes of one image."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class ImageWriter(Protocol):
    """An image file under way. A program that opens it sees all committed images and no other, at any moment."""

    @property
    def images(self) -> int:
        """Images committed."""
        ...

    @property
    def stored_bytes(self) -> int:
        """Bytes of all images appended, as stored."""
        ...

    @property
    def how(self) -> str:
        """How the images are stored, for a user: compressed or not, and how many."""
        ...

    def append(self, image: ImageArray, info: FrameInfo, hurried: bool = False) -> None:
        """Write an image behind the last one. Raises `OSError`; then nothing has been appended.

        `hurried`: others wait behind it, so that no time should be spent on compressing it.
        """
        ...

    def commit(self) -> None:
        """Make all appended images visible to programs that open the file. Raises `OSError`."""
        ...

    def rollback(self) -> None:
        """Forget the images appended since the last commit."""
        ...

    def sync(self) -> None:
        """Wait until the committed images are on the disk. Raises `OSError`."""
        ...

    def finish(self) -> None:
        """Write the metadata that are known only now, and close. Raises `OSError`."""
        ...

    def close(self) -> None:
        """Close the file as it is. Idempotent."""
        ...
