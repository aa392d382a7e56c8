"""A scan as OME-TIFF: pages in the order of acquisition (z, then t), pixels in one block, positions in the OME-XML.

tifffile creates the file with an empty block of pixels; planes are written into it in place. The file is a readable
TIFF at any time; positions and times are added at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from acquisition.scan.journal import PlaneRecord, ScanHeader
from acquisition.scan.output import Images
from acquisition.scan.paths import writing
from stream.errors import OutputError

CLASSIC_TIFF_BYTES = (1 << 32) - (1 << 26)  # of pixels; 64 MB of the 4 GB are left for pages and OME-XML
NAMESPACE = "liveptv/scan"
UM = "µm"


class TiffOutput:
    """An unfinished OME-TIFF; BigTIFF if it does not fit into 4 GB."""

    def __init__(self, path: Path, header: ScanHeader) -> None:
        """Open a file made by `create`. Raises `OutputError` if it is not one."""
        self._path, self._header = path, header
        self._dtype = np.dtype(header.dtype)
        try:
            with tifffile.TiffFile(path) as file:
                page = file.pages.first
                self._offset = page.dataoffsets[0]
                whole = (page.shape, page.dtype, len(file.pages)) == (
                    (header.height, header.width),
                    self._dtype,
                    header.planes * header.images,
                )
            if not whole:
                raise OutputError(f"{path} is not the file of this scan; pass --overwrite to start again")
            self._file = path.open("r+b", buffering=0)
        except OutputError:
            raise
        except Exception as error:
            why = " ".join(str(error).split())
            raise OutputError(f"{path} cannot be resumed ({why}); pass --overwrite to start again") from error

    @classmethod
    def create(cls, path: Path, header: ScanHeader) -> TiffOutput:
        """Create the file with all its pages, empty. Raises `OutputError`."""
        shape = (header.planes, header.images, header.height, header.width)
        big = header.planes * header.plane_bytes > CLASSIC_TIFF_BYTES
        with writing(path), tifffile.TiffWriter(path, bigtiff=big, ome=True) as writer:
            writer.write(shape=shape, dtype=header.dtype, photometric="minisblack", metadata={"axes": "ZTYX"})
        return cls(path, header)

    def write(self, plane: int, images: Images) -> None:
        """Write the images of a plane. Raises `OutputError`."""
        with writing(self._path):
            self._seek(plane)
            rest = np.ascontiguousarray(images, self._dtype).data.cast("B")
            while rest:
                rest = rest[self._file.write(rest) :]

    def read(self, plane: int) -> Images:
        """The images (N, H, W) of a plane as stored in the file. Raises `OutputError`."""
        header = self._header
        images = np.zeros((header.images, header.height, header.width), self._dtype)
        with writing(self._path):
            self._seek(plane)
            rest = images.data.cast("B")
            while rest and (count := self._file.readinto(rest)):
                rest = rest[count:]
        return images

    def _seek(self, plane: int) -> None:
        self._file.seek(self._offset + plane * self._header.plane_bytes)

    def finish(self, records: Sequence[PlaneRecord], facts: dict[str, Any]) -> None:
        """Write the OME-XML with every plane's position and times. Raises `OutputError`."""
        self.close()
        with writing(self._path):
            tifffile.tiffcomment(self._path, ome_xml(self._header, records, facts).encode())

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()


def ome_xml(header: ScanHeader, records: Sequence[PlaneRecord], facts: dict[str, Any]) -> str:
    """The OME-XML of a scan: sizes in um, times in s, measured positions with all digits."""
    pages = header.planes * header.images
    by_page = [(record, image) for record in records for image in range(header.images)]
    sizes: dict[str, Any] = {"PhysicalSizeZ": header.step_um, "PhysicalSizeZUnit": UM}
    if header.pixel_size_um is not None:
        for axis in "XY":
            sizes |= {f"PhysicalSize{axis}": header.pixel_size_um, f"PhysicalSize{axis}Unit": UM}
    xml = tifffile.OmeXml(Creator=str(facts.get("software", "liveptv")))
    xml.addimage(
        header.dtype,
        (header.planes, header.images, header.height, header.width),
        (pages, 1, 1, header.height, header.width, 1),
        axes="ZTYX",
        Name=str(facts.get("name", "scan")),
        AcquisitionDate=facts.get("began"),
        Plane={
            "PositionZ": [record.focus_um for record, _ in by_page],
            "PositionZUnit": [UM] * pages,
            "DeltaT": [record.time_s[image] for record, image in by_page],
            "DeltaTUnit": ["s"] * pages,
            "ExposureTime": [record.exposure_ms for record, _ in by_page],
            "ExposureTimeUnit": ["ms"] * pages,
        },
        MapAnnotation={"Namespace": NAMESPACE, **{name: str(value) for name, value in facts.items()}},
        **sizes,
    )
    return str(xml.tostring(declaration=True))
