"""Adds a view for VTK and ParaView to a trajectory file: a cloud of points for each frame.

Group `/VTKHDF` is a PolyData with time steps (VTK file formats, "VTKHDF", version 2.0), which ParaView's VTKHDF
reader opens. Points are the rows that count, at their absolute height and rounded to 1/8 um; `track` is the id with
which ParaView's filter "Temporal Particles To Pathlines" joins them. For calculations use `/tracks/rows`.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tracking.trajectories.columns import Trajectories
from tracking.trajectories.reader import TrajectoryFile

GROUP = "VTKHDF"
VERSION = (2, 0)
CHUNK = 32_768
STEPS_PER_UM = 2.0**3
"""Steps of 0.125 um: below what a screen shows of a field of 100 um and more; finer steps make the file larger."""
TOPOLOGIES = ("Vertices", "Lines", "Polygons", "Strips")


def write_vtk_view(target: h5py.File, file: TrajectoryFile, refraction_factor: float = 1.0) -> None:
    """Add the group to `target`, from the rows that count of `file`."""
    group = target.create_group(GROUP)
    group.attrs["Version"] = np.array(VERSION, np.int64)
    group.attrs.create("Type", np.bytes_("PolyData"))
    points = _growing(group, "Points", (3,), np.float32)
    data = group.create_group("PointData")
    track = _growing(data, "track", (), np.uint32)
    numbers = file.frames["frame"]
    count = np.zeros(len(numbers), np.int64)
    for piece in file.trajectories():
        _append(points, _places(piece, refraction_factor))
        _append(track, piece.track.astype(np.uint32))
        count += np.bincount(np.searchsorted(numbers, piece.frame), minlength=len(numbers))
    _write_parts(group, count)
    _write_steps(group, count, file.frames["time_s"])


def _places(piece: Trajectories, refraction_factor: float) -> npt.NDArray[np.float32]:
    focus_um = np.nan_to_num(piece.of_frame("focus_um"))
    height = np.nan_to_num(refraction_factor * (focus_um + piece.z_um))
    places = np.stack([piece.x_um, piece.y_um, height], axis=1)
    return (np.rint(places * STEPS_PER_UM) / STEPS_PER_UM).astype(np.float32)


def _write_parts(group: h5py.Group, count: npt.NDArray[np.int64]) -> None:
    """One part a frame; all share the numbers 0, 1, 2 ... as cells of one point each."""
    most = int(count.max(initial=0))
    _whole(group, "NumberOfPoints", count)
    for name in TOPOLOGIES:
        inner = group.create_group(name)
        cells = count if name == "Vertices" else np.zeros_like(count)
        width = most if name == "Vertices" else 0
        _whole(inner, "NumberOfCells", cells)
        _whole(inner, "NumberOfConnectivityIds", cells)
        _whole(inner, "Connectivity", np.arange(width, dtype=np.int64))
        _whole(inner, "Offsets", np.arange(width + 1, dtype=np.int64))


def _write_steps(group: h5py.Group, count: npt.NDArray[np.int64], time_s: npt.NDArray[np.float64]) -> None:
    steps = group.create_group("Steps")
    number = len(count)
    first = np.cumsum(count) - count
    known = np.isfinite(time_s).all()
    steps.attrs["NSteps"] = number
    _whole(steps, "Values", time_s if known else np.arange(number, dtype=np.float64))
    _whole(steps, "PartOffsets", np.arange(number, dtype=np.int64))
    _whole(steps, "NumberOfParts", np.ones(number, np.int64))
    _whole(steps, "PointOffsets", first)
    nothing = np.zeros((number, len(TOPOLOGIES)), np.int64)
    _whole(steps, "CellOffsets", nothing)
    _whole(steps, "ConnectivityIdOffsets", nothing)
    _whole(steps.create_group("PointDataOffsets"), "track", first)


def _growing(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
    return group.create_dataset(
        name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(CHUNK, *(1 for _ in shape)), shuffle=True,
        compression="gzip",
    )  # fmt: skip


def _append(dataset: h5py.Dataset, values: npt.NDArray[Any]) -> None:
    start = dataset.shape[0]
    dataset.resize(start + len(values), axis=0)
    dataset[start:] = values


def _whole(group: h5py.Group, name: str, values: npt.NDArray[Any]) -> None:
    if values.size:
        group.create_dataset(name, data=values, chunks=True, shuffle=True, compression="gzip")
    else:
        group.create_dataset(name, data=values)
