"""Writes VTK PolyData (`.vtp`) for ParaView and others: a poly-line for each track, the columns as point data.

Points are in the order of frames, so that they can be filtered by time; arrays are raw in base64 (VTK User's Guide,
"VTK File Formats", XML). Without depth z is 0, and the array `z_known` says so. All arrays are written in one pass:
their places in the file follow from the number of rows.
"""

from __future__ import annotations

import base64
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tracking.export.columns import depth, further, values_of
from tracking.export.source import Exported
from tracking.trajectories.columns import Trajectories

SCALARS = ("track", "frame", "time_s", "brightness", "confidence", "flags")
VECTORS = {
    "velocity_um_s": ("vx_um_s", "vy_um_s", "vz_um_s"),
    "sigma_um": ("sigma_x_um", "sigma_y_um", "sigma_z_um"),
    "sigma_velocity_um_s": ("sigma_vx_um_s", "sigma_vy_um_s", "sigma_vz_um_s"),
}
Z_KNOWN = "z_known"
TYPES = {"f": "Float", "i": "Int", "u": "UInt"}
PIECE_BYTES = 3 << 20  # encoded at once; a multiple of 3, so that base64 pads only the last piece
BLOCK = 1 << 18  # links written at once, 2 MB
Values = npt.NDArray[Any]


def write_vtp(path: Path, source: Exported) -> list[str]:
    """Write all tracks; returns what the format does not hold."""
    contents, tracks = source.contents, source.by_track
    first = next(source.pieces())
    names = _names(source)
    order = "LittleEndian" if sys.byteorder == "little" else "BigEndian"
    with path.open("wb") as file:
        _text(
            file,
            '<?xml version="1.0"?>\n'
            f'<VTKFile type="PolyData" version="1.0" byte_order="{order}" header_type="UInt64">\n'
            f'<PolyData>\n<Piece NumberOfPoints="{contents.rows}" NumberOfVerts="0" '
            f'NumberOfLines="{contents.tracks}" NumberOfStrips="0" NumberOfPolys="0">\n'
            '<PointData Scalars="track" Vectors="velocity_um_s">\n',
        )
        arrays = {name: _Array(file, name, values_at(first, name), contents.rows) for name in names}
        _text(file, '</PointData>\n<CellData Scalars="track_of_line">\n')
        _whole(file, "track_of_line", tracks.number)
        _text(file, "</CellData>\n<Points>\n")
        arrays["points_um"] = _Array(file, "points_um", values_at(first, "points_um"), contents.rows)
        _text(file, "</Points>\n<Lines>\n")
        links = _Array(file, "connectivity", tracks.number[:0], len(tracks.order))
        _whole(file, "offsets", tracks.first[1:])
        _text(file, "</Lines>\n</Piece>\n</PolyData>\n</VTKFile>\n")
        for piece in source.pieces():
            for name, array in arrays.items():
                array.add(values_at(piece, name))
        for start in range(0, len(tracks.order), BLOCK):
            links.add(tracks.order[start : start + BLOCK].astype(np.int64))
        for array in (*arrays.values(), links):
            array.finish()
    return ["frames without particles", "events", "attributes"]


def _names(source: Exported) -> Iterator[str]:
    """The names of the arrays at points, in order."""
    yield from (*SCALARS, *VECTORS)
    if depth(source.contents) != "all":
        yield Z_KNOWN
    inside = {*SCALARS, *(part for parts in VECTORS.values() for part in parts)}
    yield from (name for name in further(source) if name not in inside)


def values_at(piece: Trajectories, name: str) -> Values:
    """An array of the file, for the points of a piece."""
    if name == "points_um":
        return np.nan_to_num(np.stack([piece.x_um, piece.y_um, piece.z_um], axis=1), nan=0.0)
    if name == Z_KNOWN:
        return np.isfinite(piece.z_um).astype(np.uint8)
    if name in VECTORS:
        return np.stack([getattr(piece, part) for part in VECTORS[name]], axis=1)
    return values_of(piece, name)


class _Array:
    """An array whose place in the file is reserved and then filled from its beginning."""

    def __init__(self, file: BinaryIO, name: str, like: Values, rows: int) -> None:
        """Reserve the place of `rows` entries of the type and width of `like`."""
        self._file = file
        kind = TYPES[like.dtype.kind] + str(8 * like.dtype.itemsize)
        components = f' NumberOfComponents="{like.shape[1]}"' if like.ndim == 2 else ""
        _text(file, f'<DataArray type="{kind}" Name="{name}"{components} format="binary">\n')
        nbytes = rows * like.itemsize * (like.shape[1] if like.ndim == 2 else 1)
        self._at = file.tell()
        self._rest = struct.pack("=Q", nbytes)
        file.seek(self._at + 4 * ((len(self._rest) + nbytes + 2) // 3))
        _text(file, "\n</DataArray>\n")

    def add(self, values: Values) -> None:
        """Write the next entries."""
        data = self._rest + np.ascontiguousarray(values).tobytes()
        whole = len(data) - len(data) % 3
        self._write(data[:whole])
        self._rest = data[whole:]

    def finish(self) -> None:
        """Write what is left, padded."""
        self._write(self._rest)

    def _write(self, data: bytes) -> None:
        self._file.seek(self._at)
        for start in range(0, len(data), PIECE_BYTES):
            self._file.write(base64.b64encode(data[start : start + PIECE_BYTES]))
        self._at = self._file.tell()


def _whole(file: BinaryIO, name: str, values: Values) -> None:
    array = _Array(file, name, values, len(values))
    end = file.tell()
    array.add(values)
    array.finish()
    file.seek(end)


def _text(file: BinaryIO, text: str) -> None:
    file.write(text.encode("ascii"))
