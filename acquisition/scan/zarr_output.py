"""A scan as OME-Zarr 0.4: one image per chunk, axes t, z, y, x; measured positions in the attribute `liveptv`.

OME-Zarr itself has only a step along z; `open_stack` reads the measured positions from the attribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from acquisition.scan.journal import PlaneRecord, ScanHeader
from acquisition.scan.output import Images
from acquisition.scan.paths import writing
from stream.errors import OutputError

LEVEL = "0"


class ZarrOutput:
    """An unfinished OME-Zarr."""

    def __init__(self, path: Path, header: ScanHeader) -> None:
        """Open a folder made by `create`. Raises `OutputError` if it is not one."""
        self._path, self._header = path, header
        try:
            self._group = zarr.open_group(str(path), mode="r+")
            array: Any = self._group[LEVEL]
        except Exception as error:
            why = " ".join(str(error).split())
            raise OutputError(f"{path} cannot be resumed ({why}); pass --overwrite to start again") from error
        shape = (header.images, header.planes, header.height, header.width)
        if array.shape != shape or array.dtype.name != header.dtype:
            raise OutputError(f"{path} is not the file of this scan; pass --overwrite to start again")
        self._array = array

    @classmethod
    def create(cls, path: Path, header: ScanHeader) -> ZarrOutput:
        """Create the folder without images. Raises `OutputError`."""
        with writing(path):
            group = zarr.open_group(str(path), mode="w", zarr_format=2)
            group.create_array(
                LEVEL,
                shape=(header.images, header.planes, header.height, header.width),
                chunks=(1, 1, header.height, header.width),
                dtype=header.dtype,
                chunk_key_encoding={"name": "v2", "separator": "/"},
            )
        return cls(path, header)

    def write(self, plane: int, images: Images) -> None:
        """Write the images of a plane. Raises `OutputError`."""
        with writing(self._path):
            self._array[:, plane] = images

    def read(self, plane: int) -> Images:
        """The images (N, H, W) of a plane; zeros if they cannot be read, as if never written."""
        try:
            return np.asarray(self._array[:, plane])
        except Exception:  # noqa: BLE001 - a truncated chunk: each codec raises its own error
            header = self._header
            return np.zeros((header.images, header.height, header.width), header.dtype)

    def finish(self, records: Sequence[PlaneRecord], facts: dict[str, Any]) -> None:
        """Write the attributes. Raises `OutputError`."""
        with writing(self._path):
            self._group.attrs.update(ome_attributes(self._header, records, facts))

    def close(self) -> None:
        """Nothing is held open."""


def ome_attributes(
    header: ScanHeader, records: Sequence[PlaneRecord], facts: dict[str, Any]
) -> dict[str, Any]:
    """The attributes of the group: OME-NGFF 0.4, and `liveptv` with `focus_um`, `exposure_ms` (Z,) and
    `time_s` (Z, T)."""
    pixel_um = header.pixel_size_um
    space = {"type": "space"} | ({"unit": "micrometer"} if pixel_um is not None else {})
    axes = [
        {"name": "t", "type": "time"},
        {"name": "z", "type": "space", "unit": "micrometer"},
        {"name": "y", **space},
        {"name": "x", **space},
    ]
    scale = [1.0, header.step_um, pixel_um or 1.0, pixel_um or 1.0]
    first_um = min(header.positions_um)
    transformations = [
        {"type": "scale", "scale": scale},
        {"type": "translation", "translation": [0.0, first_um, 0.0, 0.0]},
    ]
    image = {
        "version": "0.4",
        "name": str(facts.get("name", "scan")),
        "axes": axes,
        "datasets": [{"path": LEVEL, "coordinateTransformations": transformations}],
    }
    planes = {
        "focus_um": [record.focus_um for record in records],
        "exposure_ms": [record.exposure_ms for record in records],
        "time_s": [list(record.time_s) for record in records],
    }
    return {"multiscales": [image], "liveptv": {"facts": facts, "planes": planes}}
