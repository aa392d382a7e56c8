"""Reads flowtracks' tables of particles (OpenPTV): HDF5 of PyTables (`/particles`) and Zarr (`trajectories`).

flowtracks has positions in m and velocities in m/s; a Zarr file may state other units. Time counts frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from stream.errors import SourceError
from stream.hdf5_checks import RECORDS
from stream.hdf5_reading import dataset, open_hdf5, reading
from stream.hdf5_reading import values as values_in
from tracking.imports.imported import OF_FRAMES, OF_ROWS, Assumed, Imported, json_object
from tracking.imports.units import length_um
from tracking.imports.zarr_reading import numbers, open_group, whole_numbers

METRE_UM = 1e6
OURS = "liveptv"
AXES = "xyz"
Values = npt.NDArray[Any]


def read_flowtracks_h5(path: Path, assumed: Assumed) -> Imported:
    """Read `/particles` of an HDF5 file. Raises `SourceError`."""
    with open_hdf5(path) as file:
        table = dataset(file, "particles", kinds=RECORDS, ndim=1)
        fields = table.dtype.names or ()
        rows = table[...]
        attributes = json_object(bytes(values_in(file, OURS, kinds="u").tobytes())) if OURS in file else {}
    found: dict[str, Values] = {}
    for name in fields:
        kind = rows.dtype[name].base.kind
        if kind in "biuf":
            found[name] = rows[name]
    return _imported(path, found, {}, attributes, assumed, "flowtracks HDF5")


def read_flowtracks_zarr(path: Path, assumed: Assumed, inside: str) -> Imported:
    """Read the arrays of the group `inside` a Zarr folder. Raises `SourceError`."""
    with reading(path):
        root = open_group(path)
        group = root[inside] if inside else root
        assert isinstance(group, zarr.Group)
        place = path / inside
        found: dict[str, Values] = {"trajid": numbers(place, group, "trajid")}
        rows = len(found["trajid"])
        found["time"] = numbers(place, group, "time", rows=rows)
        for name, ours in (("pos", "pos"), ("vel", "velocity"), ("accel", "accel")):
            if name == "pos" or name in group:
                found[ours] = numbers(place, group, name, rows=rows, width=3)
        attributes: dict[str, Any] = {}
        own = root.get(OURS)
        if isinstance(own, zarr.Group):
            stated = dict(own.attrs).get("attributes")
            attributes = stated if isinstance(stated, dict) else {}
            for name in own.array_keys():
                if name in (*OF_ROWS, *OF_FRAMES, "z_known"):
                    found[name] = numbers(path / OURS, own, name, rows=rows)
        units = {key: str(value) for key, value in dict(group.attrs).items() if key.endswith("_units")}
    return _imported(path, found, units, attributes, assumed, "flowtracks Zarr")


def _imported(
    path: Path,
    found: dict[str, Values],
    units: dict[str, str],
    attributes: dict[str, Any],
    assumed: Assumed,
    kind: str,
) -> Imported:
    for name, width in (("trajid", 1), ("time", 1), ("pos", 3)):
        shape = found[name].shape[1:] if name in found else None
        if shape != (() if width == 1 else (width,)):
            raise SourceError(f"{path}: the column {name} is missing or does not have {width} values a row")
    remarks: list[str] = []
    size = assumed.length_um or _length_um(path, units, remarks)
    position = found["pos"].astype(np.float64)
    columns: dict[str, Values] = {f"{axis}_um": position[:, i] * size for i, axis in enumerate(AXES)}
    velocity = found.get("velocity")
    if velocity is not None and velocity.shape[1:] == (3,):
        scale = _per_second(units, size, assumed, remarks)
        if scale is not None:
            columns |= {
                f"v{axis}_um_s": velocity[:, i].astype(np.float64) * scale for i, axis in enumerate(AXES)
            }
    ours = bool(attributes)
    if ours:
        columns |= {name: found[name] for name in (*OF_ROWS, *OF_FRAMES) if name in found}
        if "z_known" in found:
            columns["z_um"][found["z_known"] == 0] = np.nan
    other = (
        set(found)
        - {"trajid", "time", "pos", "velocity", "z_known", "revised"}
        - (set(columns) if ours else set())
    )
    return Imported(
        format=kind,
        frame=whole_numbers(path, found["time"], "time"),
        track=whole_numbers(path, found["trajid"], "trajid"),
        columns=columns,
        attributes=attributes,
        remarks=tuple(remarks),
        left_out=tuple({"accel": "accelerations"}.get(name, f"the column {name}") for name in sorted(other)),
    )


def _length_um(path: Path, units: dict[str, str], remarks: list[str]) -> float:
    stated = units.get("pos_units")
    if stated is None:
        return METRE_UM
    size = length_um(stated)
    if size is None:
        raise SourceError(f"{path}: positions are in {stated[:20]!r}; give --length-unit")
    if size != METRE_UM:
        remarks.append(f"positions in {stated}")
    return size


def _per_second(units: dict[str, str], size: float, assumed: Assumed, remarks: list[str]) -> float | None:
    """The unit of velocities in um/s; None if it is per frame and the frames have no rate."""
    stated = units.get("vel_units")
    if stated is None:
        return size
    words = stated.replace("/", " ").split()
    own = length_um(words[0]) if words else None
    length = assumed.length_um or own or size
    if len(words) > 1 and words[1].rstrip("-1") in {"s", "second"}:
        return length
    if len(words) > 1 and words[1].startswith("frame") and assumed.frame_rate_hz:
        return length * assumed.frame_rate_hz
    remarks.append(f"velocities in {stated} are left out; --frame-rate converts those a frame")
    return None
