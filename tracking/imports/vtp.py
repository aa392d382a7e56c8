"""Reads VTK PolyData (`.vtp`): points with a frame, joined by poly-lines or by the numbers of their tracks.

Arrays of our names become columns. Files of other programs need an array of frames (`frame`, or whole numbers in
`time` or `t`), and either lines or an array of track numbers (`track`, `trajid`, `track_id`, `particle`). VTK has
no units: where neither the names nor a field `units:pos` says it, the unit of length has to be given.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.errors import SourceError
from stream.hdf5_checks import check_memory
from stream.hdf5_reading import reading
from tracking.imports.graph import NO_LABEL, IntArray, tracks_of
from tracking.imports.imported import OF_FRAMES, OF_ROWS, Assumed, Imported
from tracking.imports.units import length_um
from tracking.imports.vtk_arrays import DamagedError, DataArray, Layout, values_of
from tracking.imports.xml_reading import MalformedError, parse, whole

FRAMES, TRACKS = ("frame", "time", "t"), ("track", "trajid", "track_id", "trackid", "particle")
OUR_POINTS, Z_KNOWN = "points_um", "z_known"
VECTORS = {
    "velocity_um_s": ("vx_um_s", "vy_um_s", "vz_um_s"),
    "sigma_um": ("sigma_x_um", "sigma_y_um", "sigma_z_um"),
    "sigma_velocity_um_s": ("sigma_vx_um_s", "sigma_vy_um_s", "sigma_vz_um_s"),
}
APPENDED = b"<AppendedData"
ARRAYS = {"DataArray", "Array"}
SECTIONS = ("PointData", "CellData", "Points", "Verts", "Lines", "Strips", "Polys", "FieldData")
Values = npt.NDArray[Any]


def read_vtp(path: Path, assumed: Assumed) -> Imported:
    """Read a file of VTK, ParaView or liveptv. Raises `SourceError`."""
    with reading(path):
        check_memory(2 * path.stat().st_size, str(path))
        file = _File(path)
        try:
            return _imported(path, file, assumed)
        except DamagedError as error:
            raise SourceError(f"cannot read {path}: {error}") from error


class _File:
    """The arrays of a file with one piece."""

    def __init__(self, path: Path) -> None:
        self.arrays: dict[tuple[str, str], DataArray] = {}
        self.points = self.lines = 0
        self.layout = Layout("<", "u4", "")
        self.kind = ""
        self.encoding = ""
        self.units: dict[str, str] = {}
        self._section, self._inner, self._pieces = "", "", 0
        self._open: DataArray | None = None
        self._text: list[str] = []
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            at = data.find(APPENDED)
            parse(path, self._start, end=self._end, text=self._take, most_bytes=None if at < 0 else at)
            self.appended = b""
            if at >= 0:
                begin = data.find(b">", at)
                self.encoding = "base64" if b"base64" in data[at:begin] else "raw"
                mark = data.find(b"_", begin)
                if begin < 0 or mark < 0:
                    raise SourceError(f"cannot read {path}: its appended data are cut short")
                stop = data.rfind(b"</AppendedData>") if self.encoding == "base64" else len(data)
                self.appended = data[mark + 1 : stop if stop > mark else len(data)].rstrip(
                    b" \n\r\t" if self.encoding == "base64" else b""
                )
        if self.kind != "PolyData":
            raise SourceError(
                f"{path} is VTK's {self.kind or 'file of no type'}, not PolyData; save poly-lines"
            )
        if self._pieces > 1:
            raise SourceError(f"{path} has {self._pieces} pieces; save it as one piece")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._inner = tag
        if tag == "VTKFile":
            self.kind = attributes.get("type", "")
            order = ">" if attributes.get("byte_order") == "BigEndian" else "<"
            header = {"UInt32": "u4", "UInt64": "u8"}.get(attributes.get("header_type", "UInt32"))
            if header is None:
                raise MalformedError(f"its header_type is {attributes['header_type'][:20]!r}")
            self.layout = Layout(order, header, attributes.get("compressor", ""))
        elif tag == "Piece":
            self._pieces += 1
            self.points, self.lines = (
                whole(attributes, "NumberOfPoints"),
                int(attributes.get("NumberOfLines", 0)),
            )
        elif tag in SECTIONS:
            self._section = tag
        elif tag in ARRAYS:
            self._array(attributes)

    def _array(self, attributes: dict[str, str]) -> None:
        form = attributes.get("format", "ascii")
        components = whole(attributes, "NumberOfComponents") if "NumberOfComponents" in attributes else 1
        name = attributes.get("Name", "")
        data: bytes | int = whole(attributes, "offset") if form == "appended" else b""
        self._open = DataArray(
            name, self._section, attributes.get("type", ""), max(components, 1), form, data
        )
        self._text = []
        self.arrays.setdefault((self._section, name), self._open)

    def _end(self, tag: str) -> None:
        self._inner = ""
        if tag in ARRAYS and self._open is not None:
            if self._open.format != "appended":
                self._open.data = "".join(self._text).encode("ascii", "replace")
            self._open, self._text = None, []
        elif tag in SECTIONS:
            self._section = ""

    def _take(self, text: str) -> None:
        if self._open is not None and self._open.format != "appended" and self._inner in ARRAYS:
            self._text.append(text)

    def values(self, section: str, name: str, rows: int | None = None, width: int = 1) -> Values:
        """An array (N,) or (N, width). Raises `DamagedError`."""
        array = self.arrays[section, name]
        found = values_of(array, self.layout, self.appended, self.encoding == "base64")
        if not isinstance(array.data, int):
            array.data = b""  # read once; the text of all arrays is larger than their values
        shape = found.shape[1:] or (1,)
        if (rows is not None and len(found) != rows) or shape != (width,):
            raise DamagedError(f"the array {name} has {len(found)} x {shape[0]} values, not {rows} x {width}")
        return found

    def names(self, section: str) -> list[str]:
        """The arrays of a section."""
        return [name for where, name in self.arrays if where == section]

    def text(self, name: str) -> str:
        """A text among the field data, "" if there is none: VTK stores it as the codes of its letters."""
        array = self.arrays.get(("FieldData", name))
        if array is None or array.kind != "String":
            return ""
        array.kind = "UInt8" if array.format != "ascii" else "Int32"
        codes = values_of(array, self.layout, self.appended, self.encoding == "base64")
        return "".join(chr(code) for code in codes.ravel().tolist() if 0 < code < 0x110000)


def _imported(path: Path, file: _File, assumed: Assumed) -> Imported:
    names = {name.casefold(): name for name in file.names("PointData")}
    points_name = next(iter(file.names("Points")), None)
    if points_name is None:
        raise DamagedError("it has no points")
    points = file.values("Points", points_name, file.points, 3).astype(np.float64)
    ours = points_name == OUR_POINTS
    size = 1.0 if ours else assumed.length_um or length_um(file.text("units:pos"))
    if size is None:
        raise SourceError(f"{path}: VTK files have no unit of length; give --length-unit")
    columns: dict[str, Values] = {f"{axis}_um": points[:, i] * size for i, axis in enumerate("xyz")}
    if Z_KNOWN in names:
        columns["z_um"][file.values("PointData", Z_KNOWN, file.points) == 0] = np.nan
    elif not ours and not columns["z_um"].any():
        columns["z_um"][:] = np.nan
    frame = _frames(path, file, names)
    used = {*FRAMES, *TRACKS, Z_KNOWN, "revised"}
    if ours:
        for name, parts in VECTORS.items():
            if name in names:
                vectors = file.values("PointData", name, file.points, 3)
                columns |= {part: vectors[:, i] for i, part in enumerate(parts)}
                used.add(name)
        for name in (*OF_ROWS, *OF_FRAMES):
            if name in names and name not in columns:
                columns[name] = file.values("PointData", name, file.points)
                used.add(name)
    label = _labels(path, file, names)
    tracks = tracks_of(frame, _links(file), label) if file.lines else None
    if tracks is None and label is None:
        raise SourceError(f"{path} has neither lines nor numbers of tracks; its points cannot be joined")
    return Imported(
        format="VTK PolyData",
        frame=frame,
        track=tracks.track if tracks is not None else _given(label),
        columns=columns,
        remarks=tracks.remarks if tracks is not None else (),
        left_out=tuple(
            f"the array {name}" for low, name in names.items() if low not in used and name not in used
        ),
    )


def _given(label: IntArray | None) -> IntArray:
    assert label is not None
    return label


def _frames(path: Path, file: _File, names: dict[str, str]) -> IntArray:
    name = next((names[name] for name in FRAMES if name in names), None)
    if name is None:
        raise SourceError(f"{path} has no array of frames ({', '.join(FRAMES)}) at its points")
    values = file.values("PointData", name, file.points)
    if values.dtype.kind == "f" and (not np.isfinite(values).all() or (values != np.rint(values)).any()):
        raise SourceError(f"{path}: {name} has values that are not frames; an array 'frame' is needed")
    return values.astype(np.int64)


def _labels(path: Path, file: _File, names: dict[str, str]) -> IntArray | None:
    name = next((names[name] for name in TRACKS if name in names), None)
    if name is None:
        return None
    values = file.values("PointData", name, file.points)
    if values.dtype.kind == "f" and (not np.isfinite(values).all() or (values != np.rint(values)).any()):
        raise SourceError(f"{path}: {name} has values that are not numbers of tracks")
    found = values.astype(np.int64)
    return np.where(found < 0, NO_LABEL, found) if file.lines else found


def _links(file: _File) -> IntArray:
    """Pairs of points that follow one another in a poly-line."""
    offsets = file.values("Lines", "offsets", file.lines).astype(np.int64)
    points = file.values("Lines", "connectivity").astype(np.int64)
    if len(offsets) and (offsets[0] < 0 or (np.diff(offsets) < 0).any() or offsets[-1] > len(points)):
        raise DamagedError("the offsets of its lines are out of order")
    points = points[: offsets[-1] if len(offsets) else 0]
    if len(points) and (points.min() < 0 or points.max() >= file.points):
        raise DamagedError("a line leads to a point that is not there")
    links = np.stack([points[:-1], points[1:]], axis=1) if len(points) else np.empty((0, 2), np.int64)
    inside = np.ones(len(links), np.bool_)
    ends = offsets[:-1]
    inside[ends[(ends > 0) & (ends <= len(links))] - 1] = False
    return links[inside]
