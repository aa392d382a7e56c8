"""Writes VTK PolyData (`.vtp`) for ParaView and others: a poly-line for each track, the columns as point data.

Points are in the order of frames, so that they can be filtered by time; arrays are raw in base64 (VTK User's Guide,
"VTK File Formats", XML). Without depth z is 0.
"""

from __future__ import annotations

import base64
import struct
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from tracking.export.by_track import by_track
from tracking.trajectories.columns import Trajectories

SCALARS = ("track", "frame", "time_s", "brightness", "confidence", "flags")
VECTORS = {
    "velocity_um_s": ("vx_um_s", "vy_um_s", "vz_um_s"),
    "sigma_um": ("sigma_x_um", "sigma_y_um", "sigma_z_um"),
}
TYPES = {"f": "Float", "i": "Int", "u": "UInt"}
PIECE_BYTES = 3 << 20  # encoded at once; a multiple of 3, so that base64 pads only the last piece


def write_vtp(path: Path, trajectories: Trajectories) -> None:
    """Write all tracks."""
    tracks = by_track(trajectories)
    t = trajectories
    points = np.nan_to_num(np.stack([t.x_um, t.y_um, t.z_um], axis=1), nan=0.0)
    order = "LittleEndian" if sys.byteorder == "little" else "BigEndian"
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write(
            '<?xml version="1.0"?>\n'
            f'<VTKFile type="PolyData" version="1.0" byte_order="{order}" header_type="UInt64">\n'
            f'<PolyData>\n<Piece NumberOfPoints="{len(t)}" NumberOfVerts="0" '
            f'NumberOfLines="{len(tracks.number)}" NumberOfStrips="0" NumberOfPolys="0">\n'
            '<PointData Scalars="track" Vectors="velocity_um_s">\n'
        )
        for name in SCALARS:
            _array(file, name, getattr(t, name))
        for name, parts in VECTORS.items():
            _array(file, name, np.stack([getattr(t, part) for part in parts], axis=1))
        file.write('</PointData>\n<CellData Scalars="track_of_line">\n')
        _array(file, "track_of_line", tracks.number)
        file.write("</CellData>\n<Points>\n")
        _array(file, "points_um", points)
        file.write("</Points>\n<Lines>\n")
        _array(file, "connectivity", tracks.order)
        _array(file, "offsets", tracks.first[1:])
        file.write("</Lines>\n</Piece>\n</PolyData>\n</VTKFile>\n")


def _array(file: TextIO, name: str, values: npt.NDArray[Any]) -> None:
    kind = TYPES[values.dtype.kind] + str(8 * values.dtype.itemsize)
    components = f' NumberOfComponents="{values.shape[1]}"' if values.ndim == 2 else ""
    file.write(f'<DataArray type="{kind}" Name="{name}"{components} format="binary">\n')
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    head = struct.pack("=Q", len(data))
    first = PIECE_BYTES - len(head)
    file.write(base64.b64encode(head + data[:first]).decode())
    for start in range(first, len(data), PIECE_BYTES):
        file.write(base64.b64encode(data[start : start + PIECE_BYTES]).decode())
    file.write("\n</DataArray>\n")
