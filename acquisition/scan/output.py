"""The image file of a scan while it is taken: planes are written where they belong, in any order, one at a time."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from acquisition.scan.journal import PlaneRecord

Images = npt.NDArray[Any]


class ScanOutput(Protocol):
    """An unfinished file. Images (N, H, W) of a plane are written and read as one."""

    def write(self, plane: int, images: Images) -> None:
        """Write the images of a plane. Raises `OutputError`."""
        ...

    def read(self, plane: int) -> Images:
        """The images of a plane as they lie in the file. Raises `OutputError`."""
        ...

    def finish(self, records: Sequence[PlaneRecord], facts: dict[str, Any]) -> None:
        """Write positions and times of all planes, and further facts. Raises `OutputError`."""
        ...

    def close(self) -> None:
        """Close the file. Idempotent."""
        ...


def checksum(images: Images) -> int:
    """CRC-32 of images as they lie in memory."""
    return zlib.crc32(np.ascontiguousarray(images).reshape(-1).view(np.uint8).data)
