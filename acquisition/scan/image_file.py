"""Opens the image file of a scan, OME-TIFF or OME-Zarr by its name, if there is enough disk space."""

from __future__ import annotations

from acquisition.scan.journal import ScanHeader
from acquisition.scan.output import ScanOutput
from acquisition.scan.paths import ScanPaths, allocated_bytes, check_room
from acquisition.scan.tiff_output import TiffOutput
from acquisition.scan.zarr_output import ZarrOutput


def create_output(paths: ScanPaths, header: ScanHeader) -> ScanOutput:
    """Create the unfinished file with empty planes. Raises `OutputError`, also for too little disk space."""
    check_room(paths.whole, header.planes * header.plane_bytes)
    if paths.is_zarr:
        return ZarrOutput.create(paths.partial, header)
    return TiffOutput.create(paths.partial, header)


def reopen_output(paths: ScanPaths, header: ScanHeader) -> ScanOutput:
    """Open the unfinished file again. Raises `OutputError`, also if there is too little space for the rest."""
    check_room(paths.whole, header.planes * header.plane_bytes - allocated_bytes(paths.partial))
    if paths.is_zarr:
        return ZarrOutput(paths.partial, header)
    return TiffOutput(paths.partial, header)
