"""The protocol of the image file of a running scan: planes are written one at a time, in any order."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from acquisition.scan.journal import PlaneRecord

Images = npt.NDArray[Any]


class ScanOutput(Protocol):
    """An unfinished file. The images (N, H, W) of a plane are written and read together."""

    def write(self, plane: int, images: Images) -> None:
        """Write the images of a plane. Raises `OutputError`."""
        ...

    def read(self, plane: int) -> Images:
        """The images of a plane as stored in the file. Raises `OutputError`."""
        ...

    def finish(self, records: Sequence[PlaneRecord], facts: dict[str, Any]) -> None:
        """Write positions and times of all planes, and further metadata. Raises `OutputError`."""
        ...

    def close(self) -> None:
        """Close the file. Idempotent."""
        ...


def checksum(images: Images) -> int:
    """CRC-32 of images as stored in memory."""
    return zlib.crc32(np.ascontiguousarray(images).reshape(-1).view(np.uint8).data)
