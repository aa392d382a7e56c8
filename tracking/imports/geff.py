"""Reads GEFF, the Graph Exchange File Format (0.x to 1.x): a graph of nodes (particles) and edges (links).

Each node has a frame and a position by the axes of the metadata; properties by the names of our columns become
columns. Tracks that split or merge become tracks of their own (`tracking.imports.graph`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from stream.errors import SourceError
from stream.hdf5_reading import reading
from tracking.imports.graph import NO_LABEL, IntArray, tracks_of
from tracking.imports.imported import OF_FRAMES, OF_ROWS, Assumed, Imported
from tracking.imports.units import is_pixels, length_um, seconds
from tracking.imports.zarr_reading import array, numbers, open_group, whole_numbers

OURS_ONLY = ("flags", "detection")
"""Columns whose names are too general, or whose meaning too special, to be taken from other programs."""
GUESSED_AXES = {"t": "time", "time": "time", "frame": "time", "x": "space", "y": "space", "z": "space"}


def read_geff(path: Path, assumed: Assumed, inside: str = "") -> Imported:
    """Read the group `inside` the folder `path`. Raises `SourceError` of one line if it is not as it should be."""
    with reading(path):
        group = open_group(path / inside)
        return _Reader(path / inside, group, assumed).read()


class _Reader:
    def __init__(self, path: Path, group: zarr.Group, assumed: Assumed) -> None:
        self.path, self.group, self.assumed = path, group, assumed
        facts = dict(group.attrs).get("geff")
        if not isinstance(facts, dict):
            raise SourceError(f"{path} has no GEFF metadata")
        self.facts: dict[str, Any] = facts
        self.remarks: list[str] = []
        version = str(facts.get("geff_version", "?"))
        self.format = f"GEFF {version}"
        if not version.partition(".")[0].isdigit() or int(version.partition(".")[0]) > 1:
            raise SourceError(f"{path} is GEFF {version}; versions 0 and 1 are read")
        extra = facts.get("extra")
        ours = extra.get("liveptv") if isinstance(extra, dict) else None
        self.attributes: dict[str, Any] = ours if isinstance(ours, dict) else {}
        self.properties = _mapping(facts.get("node_props_metadata"))
        self.ids = whole_numbers(path, numbers(path, group, "nodes/ids"), "nodes/ids")

    def read(self) -> Imported:
        """Everything that a trajectory file can hold."""
        axes = self._axes()
        time, space = axes["time"], axes["space"]
        frame, times = self._frames(time)
        columns: dict[str, npt.NDArray[Any]] = {
            f"{name}_um": self._position(axis) for name, axis in space.items()
        }
        columns |= times
        columns |= self._further(set(space) | {str(time["name"])})
        tracks = tracks_of(frame, self._links(), self._labels())
        left_out = [name for name in self._names() if name not in self._used]
        return Imported(
            format=self.format,
            frame=frame,
            track=tracks.track,
            columns=columns,
            frame_interval_s=None if times else self._interval_s(time),
            attributes=self.attributes,
            remarks=(*self.remarks, *tracks.remarks),
            left_out=tuple(f"the property {name}" for name in left_out),
        )

    def _names(self) -> list[str]:
        props = self.group.get("nodes/props")
        return sorted(props.group_keys()) if isinstance(props, zarr.Group) else []

    def _axes(self) -> dict[str, Any]:
        """The axis of time and those of space, by x, y, z."""
        stated = self.facts.get("axes")
        names = self._names()
        if not isinstance(stated, list) or not stated:
            stated = [{"name": name, "type": kind} for name, kind in GUESSED_AXES.items() if name in names]
            self.remarks.append("axes taken by their names, because the file states none")
        axes = [axis for axis in stated if isinstance(axis, dict) and isinstance(axis.get("name"), str)]
        time = [axis for axis in axes if axis.get("type", GUESSED_AXES.get(axis["name"])) == "time"]
        space = [axis for axis in axes if axis.get("type", GUESSED_AXES.get(axis["name"])) == "space"]
        if len(time) != 1 or len(space) not in {2, 3}:
            raise SourceError(
                f"{self.path} has {len(time)} axes of time and {len(space)} of space, not one and two or three"
            )
        by_name = {_letter(axis["name"]): axis for axis in space}
        wanted = ("z", "y", "x")[-len(space) :]
        if set(by_name) == set(wanted):
            found = {name: by_name[name] for name in wanted}
        else:
            found = dict(zip(wanted, space, strict=True))
            self.remarks.append(
                "axes taken in their order: "
                + ", ".join(f"{name} = {axis['name']}" for name, axis in found.items())
            )
        self._used = {axis["name"] for axis in (*time, *space)}
        return {"time": time[0], "space": found}

    def _values(self, name: str, *, needed: bool = True) -> npt.NDArray[Any]:
        """A property of all nodes; NaN where it is missing, which no `needed` one may be."""
        place = f"nodes/props/{name}"
        values = numbers(self.path, self.group, f"{place}/values", rows=len(self.ids))
        if self.group.get(f"{place}/missing") is not None:
            missing = numbers(self.path, self.group, f"{place}/missing", rows=len(self.ids)).astype(np.bool_)
            if missing.any():
                if needed:
                    raise SourceError(f"{self.path}: {name} is missing at {np.count_nonzero(missing)} nodes")
                values = np.where(missing, np.nan, values.astype(np.float64))
        return values

    def _frames(self, axis: Mapping[str, Any]) -> tuple[IntArray, dict[str, npt.NDArray[np.float64]]]:
        """The frame of each node, and `time_s` where the axis is a time."""
        name = str(axis["name"])
        values = self._values(name)
        scale = seconds(axis.get("unit"))
        counted = next(
            (other for other in self._names() if other.casefold() == "frame" and other != name), None
        )
        if scale is not None and counted is not None:
            self._used.add(counted)
            frames = whole_numbers(self.path, self._values(counted), counted)
            return frames, {"time_s": values.astype(np.float64) * scale}
        if scale is None or values.dtype.kind in "iu" or (values == np.rint(values)).all():
            return whole_numbers(self.path, values, name), {}
        interval = 1.0 / self.assumed.frame_rate_hz if self.assumed.frame_rate_hz else None
        if interval is None:
            raise SourceError(
                f"{self.path}: {name} is a time, not a frame; give --frame-rate to count frames"
            )
        time_s = values.astype(np.float64) * scale
        return np.rint(time_s / interval).astype(np.int64), {"time_s": time_s}

    def _interval_s(self, axis: Mapping[str, Any]) -> float | None:
        scale, unit = axis.get("scale"), seconds(axis.get("scaled_unit"))
        if isinstance(scale, int | float) and unit and math.isfinite(scale) and scale > 0:
            return float(scale) * unit
        return seconds(axis.get("unit"))  # whole seconds (or minutes) count as frames

    def _position(self, axis: Mapping[str, Any]) -> npt.NDArray[np.float64]:
        """Positions along an axis in um; what has no unit must be given."""
        name = str(axis["name"])
        values = self._values(name).astype(np.float64)
        size = length_um(axis.get("unit"))
        scale, offset = axis.get("scale"), axis.get("offset")
        if size is None and isinstance(scale, int | float) and length_um(axis.get("scaled_unit")) is not None:
            shift = float(offset) if isinstance(offset, int | float) else 0.0
            return (values * float(scale) + shift) * float(length_um(axis.get("scaled_unit")) or 1.0)
        if size is None:
            size = self.assumed.length_um
        if size is None:
            what = (
                "in pixels; give --pixel-size"
                if is_pixels(axis.get("unit"))
                else "without a unit; give --length-unit"
            )
            raise SourceError(f"{self.path}: the axis {name} is {what}")
        return values if size == 1.0 else np.multiply(values, size, out=values)

    def _further(self, axes: set[str]) -> dict[str, npt.NDArray[Any]]:
        """The columns that other properties are, by their names."""
        wanted = [name for name in (*OF_ROWS, *OF_FRAMES) if name not in {"x_um", "y_um", "z_um"}]
        if not self.attributes:
            wanted = [name for name in wanted if name not in OURS_ONLY]
        found = {}
        there = set(self._names()) - axes
        for name in wanted:
            facts = _mapping(self.properties.get(name))
            if name in there and not facts.get("varlength") and facts.get("dtype") not in {"str", "bytes"}:
                found[name] = self._values(name, needed=False)
                self._used.add(name)
        self._used |= {"revised"}
        return found

    def _links(self) -> IntArray:
        """The edges as pairs of places among the nodes."""
        order = np.argsort(self.ids, kind="stable")
        ids = self.ids[order]
        if (ids[1:] == ids[:-1]).any():
            raise SourceError(f"{self.path}: two nodes have the id {ids[1:][ids[1:] == ids[:-1]][0]}")
        edges = numbers(self.path, self.group, "edges/ids", width=2)
        edges = whole_numbers(self.path, edges, "edges/ids")
        at = np.searchsorted(ids, edges)
        known = (at < len(ids)) & (ids[np.minimum(at, max(len(ids) - 1, 0))] == edges) if len(ids) else at < 0
        if not known.all():
            raise SourceError(f"{self.path}: an edge leads to node {edges[~known][0]}, which is not there")
        links: IntArray = order[at]
        return links

    def _labels(self) -> IntArray | None:
        """The numbers of the tracks, if the file has them."""
        name = _mapping(self.facts.get("track_node_props")).get("tracklet")
        if not isinstance(name, str) or name not in self._names():
            return None
        array(self.path, self.group, f"nodes/props/{name}/values", rows=len(self.ids))
        self._used.add(name)
        values = self._values(name, needed=False)
        missing = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(len(values), np.bool_)
        labels = whole_numbers(self.path, np.where(missing, NO_LABEL, values), name)
        return np.where(labels < 0, NO_LABEL, labels)


def _letter(name: str) -> str:
    """Which of x, y, z the name of an axis means (`x`, `POSITION_X`, `x_um`); the name if none."""
    parts = re.split(r"[^a-z0-9]+", name.casefold())
    found = [part for part in parts if part in {"x", "y", "z"}]
    return found[0] if len(found) == 1 else name


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
