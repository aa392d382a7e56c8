"""Writes flowtracks' tables of particles (OpenPTV): HDF5 that PyTables opens, or Zarr, flowtracks' newer format.

Positions are in m, velocities in m/s; time counts frames, `trajid` are our tracks. What else is known of a row are
further columns, named and in units as in the trajectory file: in HDF5 beside the others, which flowtracks reads as
properties, in Zarr in the group `liveptv`, which flowtracks does not read. Without depth z is 0, and the column
`z_known` says so. There are no accelerations: the trajectory file has none, and flowtracks derives its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import zarr

from tracking.export.columns import depth, further, spec_of, values_of
from tracking.export.geff import plain_attributes
from tracking.export.source import Exported
from tracking.trajectories.columns import Trajectories

METRE_UM = 1e6
BATCH = 1 << 16
"""Rows written at once, and in a chunk: 10 MB of a table."""
VELOCITY = ("vx_um_s", "vy_um_s", "vz_um_s")
BOUNDS = np.dtype([("trajid", "<i8"), ("first", "<i8"), ("last", "<i8")])
UNITS = {"pos_units": "m", "vel_units": "m s-1", "time_units": "frame"}
LOST = ["frames without particles", "events"]
Values = npt.NDArray[Any]


def write_flowtracks_h5(path: Path, source: Exported) -> list[str]:
    """Write `/particles` and `/bounds`; returns what the format does not hold."""
    names = _names(source)
    fields: list[Any] = [("trajid", "<i8"), ("pos", "<f8", (3,)), ("velocity", "<f8", (3,)), ("time", "<i8")]
    fields += [(name, _dtype(name)) for name in names]
    bounds = _Bounds(source)
    with h5py.File(path, "w", libver=("earliest", "v110")) as file:
        table = file.create_dataset(
            "particles", (source.contents.rows,), np.dtype(fields), maxshape=(None,), chunks=(BATCH,),
            shuffle=True, compression="gzip", compression_opts=1,
        )  # fmt: skip
        start = 0
        for piece in source.batches(BATCH):
            rows = np.empty(len(piece), table.dtype)
            rows["trajid"], rows["time"] = piece.track, piece.frame
            rows["pos"], rows["velocity"] = _position_m(piece), _velocity_m_s(piece)
            for name in names:
                rows[name] = _values(piece, name)
            table[start : start + len(piece)] = rows
            bounds.add(piece)
            start += len(piece)
        file.create_dataset("bounds", data=bounds.table(), maxshape=(None,), chunks=(1024,))
        _as_table(table, "particles")
        _as_table(file["bounds"], "first and last frame of each trajectory")
        text = json.dumps(plain_attributes(source)).encode()
        file.create_dataset("liveptv", data=np.frombuffer(text, np.uint8))
        file.attrs.update(UNITS)
    return LOST


def write_flowtracks_zarr(path: Path, source: Exported) -> list[str]:
    """Write the group `trajectories`; returns what the format does not hold."""
    root = zarr.open_group(path, mode="a")
    group, own = root.create_group("trajectories"), root.create_group("liveptv")
    rows, names = source.contents.rows, _names(source)
    arrays = {
        "pos": _array(group, "pos", (rows, 3), "<f8"),
        "vel": _array(group, "vel", (rows, 3), "<f8"),
        "time": _array(group, "time", (rows,), "<i8"),
        "trajid": _array(group, "trajid", (rows,), "<i8"),
    } | {name: _array(own, name, (rows,), _dtype(name)) for name in names}
    start = 0
    for piece in source.batches(BATCH):
        values = {
            "pos": _position_m(piece),
            "vel": _velocity_m_s(piece),
            "time": piece.frame,
            "trajid": piece.track,
        }
        values |= {name: _values(piece, name) for name in names}
        for name, array in arrays.items():
            array[start : start + len(piece)] = values[name]
        start += len(piece)
    group.attrs.update(UNITS)
    own.attrs.update({"attributes": plain_attributes(source)})
    return LOST


def _names(source: Exported) -> list[str]:
    """The columns beyond those of flowtracks."""
    names = ["time_s", *(name for name in further(source) if name not in VELOCITY)]
    return names if depth(source.contents) == "all" else ["z_known", *names]


def _dtype(name: str) -> str:
    return "|u1" if name == "z_known" else spec_of(name).dtype


def _values(piece: Trajectories, name: str) -> Values:
    return np.isfinite(piece.z_um) if name == "z_known" else values_of(piece, name)


def _position_m(piece: Trajectories) -> Values:
    return np.stack([piece.x_um, piece.y_um, np.nan_to_num(piece.z_um, nan=0.0)], axis=1) / METRE_UM


def _velocity_m_s(piece: Trajectories) -> Values:
    return np.stack([getattr(piece, name).astype(np.float64) for name in VELOCITY], axis=1) / METRE_UM


class _Bounds:
    """First and last frame of each track."""

    def __init__(self, source: Exported) -> None:
        self._number = source.contents.lengths.number
        size = int(self._number[-1]) + 1 if self._number.size else 0
        self._first = np.full(size, np.iinfo(np.int64).max)
        self._last = np.full(size, -1, np.int64)

    def add(self, piece: Trajectories) -> None:
        np.minimum.at(self._first, piece.track, piece.frame)
        np.maximum.at(self._last, piece.track, piece.frame)

    def table(self) -> npt.NDArray[np.void]:
        rows = np.empty(len(self._number), BOUNDS)
        rows["trajid"] = self._number
        rows["first"], rows["last"] = self._first[self._number], self._last[self._number]
        return rows


def _as_table(dataset: h5py.Dataset, title: str) -> None:
    """Attributes by which PyTables knows a table (PyTables' file format, version 2.1)."""
    facts: dict[str, Any] = {"CLASS": "TABLE", "VERSION": "2.7", "TITLE": title}
    facts |= {f"FIELD_{i}_NAME": name for i, name in enumerate(_column_names(dataset))}
    for name, value in facts.items():
        dataset.attrs.create(name, np.bytes_(value))


def _column_names(dataset: h5py.Dataset) -> Iterator[str]:
    yield from dataset.dtype.names or ()


def _array(group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str) -> Any:
    return group.create_array(name, shape=shape, chunks=(BATCH, *shape[1:]), dtype=dtype)
