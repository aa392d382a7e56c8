"""Writes GEFF, the Graph Exchange File Format (live-image-tracking-tools, 1.1): what TrackMate, laptrack, motile
and napari read.

A folder, a Zarr group of version 2, which every reader of GEFF has: a node for each row, in order of frames, with
the axes `t` (frame; scale: seconds a frame), `z`, `y`, `x` (micrometre) and one property for each column that
holds anything; an edge from each row of a track to its next. `track` is the tracklet id. The attributes of the
trajectory file are in `extra`, under `liveptv`. Without any depth there is no axis `z`; where only some rows have
one, the others' `z` is NaN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from tracking.export.columns import depth, further, spec_of, values_of
from tracking.export.source import Exported
from tracking.trajectories.schema import to_json

VERSION = "1.1"
CHUNK = 1 << 17
"""Values in a chunk, 1 MB: large enough that a file has few, small enough to be read one at a time."""
COMPRESSION: Any = {"id": "gzip", "level": 1}
"""Every Zarr library has it, Java's without native code; higher levels take three times as long for 5 %."""
AXIS_OF = {"z_um": "z", "y_um": "y", "x_um": "x"}
SECONDS, FRAME, LENGTH = "second", "frame", "micrometer"


def write_geff(path: Path, source: Exported) -> list[str]:
    """Write the group into the folder `path`; returns what the format does not hold."""
    contents = source.contents
    dimension = depth(contents)
    group = zarr.open_group(path, mode="a", zarr_format=2)
    names = further(source)
    axes = ["z_um"] * (dimension != "no") + ["y_um", "x_um"]
    arrays = {"nodes/ids": _array(group, "nodes/ids", (contents.rows,), "<u8")}
    properties = {"t": "frame", "track": "track", **{AXIS_OF[name]: name for name in axes}}
    properties |= {"time_s": "time_s"} | {name: name for name in names}
    for name, column in properties.items():
        kind = "<i8" if column in {"frame", "track"} else spec_of(column).dtype
        arrays[name] = _array(group, f"nodes/props/{name}/values", (contents.rows,), kind)
    start = 0
    for piece in source.batches(CHUNK):
        stop = start + len(piece)
        arrays["nodes/ids"][start:stop] = np.arange(start, stop, dtype=np.uint64)
        for name, column in properties.items():
            arrays[name][start:stop] = values_of(piece, column)
        start = stop
    _write_edges(group, source)
    group.attrs["geff"] = _metadata(source, axes, properties, {n: str(a.dtype) for n, a in arrays.items()})
    lost = ["frames without particles", "events", "the camera's frame numbers and clock times"]
    return lost if dimension != "some" else [*lost, "that some rows have no depth, but as z = NaN"]


def _array(group: zarr.Group, name: str, shape: tuple[int, ...], kind: str) -> Any:
    chunks = (CHUNK, *shape[1:])
    return group.create_array(name, shape=shape, chunks=chunks, dtype=kind, compressors=COMPRESSION)


def _write_edges(group: zarr.Group, source: Exported) -> None:
    tracks = source.by_track
    count = len(tracks.order) - len(tracks.number)
    edges = _array(group, "edges/ids", (count, 2), "<u8")
    group.require_group("edges/props")
    start = 0
    for block in _links(tracks.order, tracks.first):
        edges[start : start + len(block)] = block
        start += len(block)


def _links(order: npt.NDArray[Any], first: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.uint64]]:
    """The links (n, 2) between rows that follow one another in a track, in whole chunks but for the last."""
    last = np.zeros(len(order), np.bool_)
    last[first[1:] - 1] = True
    waiting = np.empty((0, 2), np.uint64)
    for start in range(0, len(order) - 1, CHUNK):
        inner = np.flatnonzero(~last[start : min(start + CHUNK, len(order) - 1)]) + start
        found = np.stack([order[inner], order[inner + 1]], axis=1).astype(np.uint64)
        waiting = np.concatenate([waiting, found])
        if len(waiting) >= CHUNK:
            yield waiting[:CHUNK]
            waiting = waiting[CHUNK:]
    if len(waiting):
        yield waiting


def _metadata(
    source: Exported, axes: list[str], properties: dict[str, str], dtypes: dict[str, str]
) -> dict[str, Any]:
    interval = source.frame_interval_s
    time: dict[str, Any] = {"name": "t", "type": "time", "unit": FRAME}
    if math.isfinite(interval):
        time |= {"scale": interval, "scaled_unit": SECONDS}
    spatial = [{"name": AXIS_OF[name], "type": "space", "unit": LENGTH} for name in axes]
    for axis, column in zip((time, *spatial), ("frame", *axes), strict=True):
        if column in source.contents.range:
            axis["min"], axis["max"] = source.contents.range[column]
    hints = {"display_horizontal": "x", "display_vertical": "y", "display_time": "t"}
    if "z_um" in axes:
        hints["display_depth"] = "z"
    return {
        "geff_version": VERSION,
        "directed": True,
        "axes": [time, *spatial],
        "node_props_metadata": {name: _property(name, column, dtypes) for name, column in properties.items()},
        "edge_props_metadata": {},
        "track_node_props": {"tracklet": "track"},
        "display_hints": hints,
        "extra": {"liveptv": plain_attributes(source)},
    }


def _property(name: str, column: str, dtypes: dict[str, str]) -> dict[str, Any]:
    spec = spec_of(column)
    unit = {"um": LENGTH, "s": SECONDS, "1": None}.get(spec.unit, spec.unit)
    return {
        "identifier": name,
        "dtype": np.dtype(dtypes[name]).name,
        "varlength": False,
        "unit": FRAME if name == "t" else unit,
        "name": column,
        "description": spec.meaning,
    }


def plain_attributes(source: Exported) -> dict[str, Any]:
    """The attributes of the trajectory file as JSON has them."""
    found: dict[str, Any] = json.loads(to_json(_finite(source.attributes)))
    return found


def _finite(value: Any) -> Any:
    """The value without numbers that JSON does not have; they become None."""
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return None
    return value
