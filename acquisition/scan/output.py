"""The image file of a scan while it is taken: planes are written where they belong, in any order, one at a time."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from acquisition.scan.journal import PlaneRecord, ScanHeader
from acquisition.scan.paths import ScanPaths, allocated_bytes, check_room

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


def create_output(paths: ScanPaths, header: ScanHeader) -> ScanOutput:
    """Make the unfinished file, all planes empty. Raises `OutputError`, also where the disk is too small."""
    check_room(paths.whole, header.planes * header.plane_bytes)
    if paths.is_zarr:
        from acquisition.scan.zarr_output import ZarrOutput

        return ZarrOutput.create(paths.partial, header)
    from acquisition.scan.tiff_output import TiffOutput

    return TiffOutput.create(paths.partial, header)


def reopen_output(paths: ScanPaths, header: ScanHeader) -> ScanOutput:
    """Open the unfinished file again. Raises `OutputError`, also where the disk is too small for the rest."""
    check_room(paths.whole, header.planes * header.plane_bytes - allocated_bytes(paths.partial))
    if paths.is_zarr:
        from acquisition.scan.zarr_output import ZarrOutput

        return ZarrOutput(paths.partial, header)
    from acquisition.scan.tiff_output import TiffOutput

    return TiffOutput(paths.partial, header)


def checksum(images: Images) -> int:
    """CRC-32 of images as they lie in memory."""
    return zlib.crc32(np.ascontiguousarray(images).reshape(-1).view(np.uint8).data)
