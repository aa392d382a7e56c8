"""Reads files of TrackMate (Fiji): its own XML with spots and tracks, and its simple export of tracks.

Positions and times are converted from the units of the file. Spots of no track, and tracks that the filters of
TrackMate hide, are flagged tentative: they are there, but do not count. Tracks that split or merge become tracks
of their own (`tracking.imports.graph`).
"""

from __future__ import annotations

import math
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.errors import SourceError
from stream.hdf5_reading import reading
from stream.messages import FLAGS, TrackFlag
from tracking.imports.graph import NO_LABEL, IntArray, tracks_of
from tracking.imports.imported import OF_FRAMES, OF_ROWS, Assumed, Imported
from tracking.imports.units import is_pixels, length_um, seconds
from tracking.imports.xml_reading import MalformedError, number, parse, whole
from tracking.trajectories.schema import ROW_COLUMNS

OUR_TRACK, Z_KNOWN = "LIVEPTV_TRACK", "Z_KNOWN"
SINGLE = {column.name.upper() for column in ROW_COLUMNS if column.dtype == "<f4"}
"""Features that a trajectory file has in single precision, and that need no more while they are read."""
MOST_NAMED = 8
POSITION = {"POSITION_X": "x_um", "POSITION_Y": "y_um", "POSITION_Z": "z_um"}
ASSUMED = {"pixel_size_um": "size of a pixel assumed", "image_shape": "size of the image assumed"}
"""What `tracking.export.trackmate` states in the log, because TrackMate needs numbers."""
FEATURES = {name.upper(): name for name in (*OF_ROWS, *OF_FRAMES) if name not in POSITION.values()}


def read_trackmate(path: Path, assumed: Assumed) -> Imported:
    """Read a file that TrackMate has saved (`<TrackMate>`). Raises `SourceError`."""
    found = _Model()
    with reading(path):
        parse(path, found.start, end=found.end, text=found.text)
        return found.imported(path, assumed)


def read_trackmate_tracks(path: Path, assumed: Assumed) -> Imported:
    """Read what *Export tracks to XML file* of TrackMate writes (`<Tracks>`). Raises `SourceError`."""
    found = _Tracks()
    with reading(path):
        parse(path, found.start)
        return found.imported(path, assumed)


class _Model:
    """Collects spots, edges and what TrackMate says of units and images."""

    def __init__(self) -> None:
        self.version = "?"
        self.units: dict[str, str] = {}
        self.image: dict[str, str] = {}
        self.features: dict[str, array[float]] = {}
        self.others: set[str] = set()
        self.id, self.frame = array("q"), array("q")
        self.position = {name: array("d") for name in (*POSITION, "POSITION_T")}
        self.edges, self.edge_track = array("q"), array("q")
        self.visible: set[int] = set()
        self.stated: int | None = None
        self.log = ""
        self._track = NO_LABEL
        self._inside = ""
        self._group = ""
        self._frame: str | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Take an element."""
        self._inside = tag
        if tag == "Spot":
            self._spot(attributes)
        elif tag == "Edge":
            self.edges.extend((whole(attributes, "SPOT_SOURCE_ID"), whole(attributes, "SPOT_TARGET_ID")))
            self.edge_track.append(self._track)
        elif tag == "SpotsInFrame":
            self._frame = attributes.get("frame")
        elif tag == "Track":
            self._track = whole(attributes, "TRACK_ID")
        elif tag == "TrackID":
            self.visible.add(whole(attributes, "TRACK_ID"))
        elif tag in {"SpotFeatures", "EdgeFeatures", "TrackFeatures"}:
            self._group = tag
        elif tag == "Feature" and self._group == "SpotFeatures":
            self._feature(attributes.get("feature", ""))
        elif tag == "Model":
            self.units = attributes
        elif tag == "ImageData":
            self.image = attributes
        elif tag == "AllSpots" and "nspots" in attributes:
            self.stated = whole(attributes, "nspots")
        elif tag == "TrackMate":
            self.version = attributes.get("version", "?")

    def end(self, tag: str) -> None:
        """Take the end of an element."""
        if tag == "Track":
            self._track = NO_LABEL
        self._inside = ""

    def text(self, text: str) -> None:
        """Take text; only the log counts."""
        if self._inside == "Log" and len(self.log) < 1000:
            self.log += text

    def _feature(self, name: str) -> None:
        if name in FEATURES or name in {OUR_TRACK, Z_KNOWN, "QUALITY"}:
            self.features[name] = array("f" if name in SINGLE else "d")
        elif name not in {*POSITION, "POSITION_T", "FRAME", "RADIUS", "VISIBILITY"}:
            self.others.add(name)

    def _spot(self, attributes: dict[str, str]) -> None:
        self.id.append(whole(attributes, "ID"))
        if "FRAME" not in attributes and self._frame is not None:
            attributes["FRAME"] = self._frame
        self.frame.append(whole(attributes, "FRAME"))
        for name, values in self.position.items():
            optional = name in {"POSITION_T", "POSITION_Z"} and name not in attributes
            values.append(math.nan if optional else number(attributes, name))
        for name, values in self.features.items():
            values.append(number(attributes, name) if name in attributes else math.nan)

    def imported(self, path: Path, assumed: Assumed) -> Imported:
        """What was collected, in our units."""
        remarks: list[str] = []
        if not self.id and self.stated is None:
            raise SourceError(f"{path} has no spots (<AllSpots>); save it in TrackMate once more")
        if self.stated is not None and self.stated != len(self.id):
            remarks.append(f"the file states {self.stated} spots and has {len(self.id)}")
        frame = np.array(self.frame, np.int64)
        columns, interval_s = self._columns(path, assumed, remarks)
        links, label = self._links(path)
        ours = OUR_TRACK in self.features
        if ours:
            own = np.array(self.features[OUR_TRACK])
            label = np.where(np.isfinite(own), np.nan_to_num(own), label).astype(np.int64)
        else:
            columns[FLAGS] = self._hidden(label, remarks)
        tracks = tracks_of(frame, links, label)
        left_out = sorted(self.others if ours else self.others | set(self.features))
        return Imported(
            format=f"TrackMate {self.version}",
            frame=frame,
            track=tracks.track,
            columns=columns,
            frame_interval_s=interval_s,
            attributes=self._attributes(path, assumed),
            remarks=(*remarks, *tracks.remarks),
            left_out=(f"features of spots ({', '.join(left_out[:MOST_NAMED])})",) if left_out else (),
        )

    def _columns(
        self, path: Path, assumed: Assumed, remarks: list[str]
    ) -> tuple[dict[str, npt.NDArray[Any]], float | None]:
        size = _length_um(path, self.units.get("spatialunits", "pixel"), assumed)
        columns: dict[str, npt.NDArray[Any]] = {
            name: np.frombuffer(self.position[theirs]) * size for theirs, name in POSITION.items()
        }
        ours = OUR_TRACK in self.features
        if Z_KNOWN in self.features:
            columns["z_um"][np.array(self.features[Z_KNOWN]) == 0] = np.nan
        elif not ours and not np.nan_to_num(columns["z_um"]).any():
            columns["z_um"][:] = np.nan  # TrackMate's z of two dimensions
        tick = seconds(self.units.get("timeunits"))
        if tick is not None:
            columns["time_s"] = np.array(self.position["POSITION_T"]) * tick
        if ours:
            for theirs, values in self.features.items():
                if theirs in FEATURES:
                    columns[FEATURES[theirs]] = np.asarray(values)
            quality = np.array(self.features.get("QUALITY", ()))
            if len(quality):
                columns["confidence"] = np.where(quality < 0, np.nan, quality)
        interval = self.image.get("timeinterval")
        if interval is None or tick is None:
            return columns, None
        step = number(self.image, "timeinterval") * tick
        return columns, step if math.isfinite(step) and step > 0 else None

    def _links(self, path: Path) -> tuple[IntArray, IntArray]:
        """The edges as pairs of spots, and the number of each spot's track."""
        ids = np.array(self.id, np.int64)
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        if (ids[1:] == ids[:-1]).any():
            raise SourceError(f"{path}: two spots have the ID {ids[1:][ids[1:] == ids[:-1]][0]}")
        edges = np.array(self.edges, np.int64).reshape(-1, 2)
        at = np.minimum(np.searchsorted(ids, edges), max(len(ids) - 1, 0))
        if len(edges) and (not len(ids) or (ids[at] != edges).any()):
            missing = edges[ids[at] != edges][0] if len(ids) else edges[0, 0]
            raise SourceError(f"{path}: an edge leads to spot {missing}, which is not there")
        links = order[at] if len(ids) else np.empty((0, 2), np.int64)
        label = np.full(len(ids), NO_LABEL, np.int64)
        track = np.array(self.edge_track, np.int64)
        label[links[:, 0]] = track
        label[links[:, 1]] = track
        return links, label

    def _hidden(self, label: IntArray, remarks: list[str]) -> npt.NDArray[np.float64]:
        """Flags: tentative for spots of no track, and of tracks that TrackMate's filters hide."""
        alone = label == NO_LABEL
        hidden = ~alone & ~np.isin(label, list(self.visible))
        if alone.any():
            remarks.append(
                f"{np.count_nonzero(alone)} spots of no track are flagged tentative (export --flagged has them)"
            )
        if hidden.any():
            count = len(np.unique(label[hidden]))
            remarks.append(f"{count} tracks that TrackMate's filters hide are flagged tentative")
        return np.where(alone | hidden, float(TrackFlag.TENTATIVE), 0.0)

    def _attributes(self, path: Path, assumed: Assumed) -> dict[str, Any]:
        """Size of the image and its pixels, where TrackMate knows them."""
        if not self.image:
            return {}
        size = _length_um(path, self.units.get("spatialunits", "pixel"), assumed)
        found: dict[str, Any] = {}
        try:
            pixel, height, width = (number(self.image, name) for name in ("pixelwidth", "height", "width"))
        except MalformedError:
            return {}
        if pixel > 0 and math.isfinite(pixel):
            found["pixel_size_um"] = pixel * size
        if height >= 1 and width >= 1 and height.is_integer() and width.is_integer():
            found["image_shape"] = [int(height), int(width)]
        return {name: value for name, value in found.items() if ASSUMED[name] not in self.log}


class _Tracks:
    """Collects the detections of TrackMate's simple export."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}
        self.track, self.frame = array("q"), array("q")
        self.position = {name: array("d") for name in "xyz"}
        self._number = -1

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Take an element."""
        if tag == "particle":
            self._number += 1
        elif tag == "detection":
            self.track.append(self._number)
            self.frame.append(whole(attributes, "t"))
            for name, values in self.position.items():
                values.append(number(attributes, name) if name in attributes or name != "z" else math.nan)
        elif tag == "Tracks":
            self.facts = attributes

    def imported(self, path: Path, assumed: Assumed) -> Imported:
        """What was collected, in our units."""
        size = _length_um(path, self.facts.get("spaceUnits", "pixel"), assumed)
        columns: dict[str, npt.NDArray[Any]] = {
            f"{name}_um": np.array(values) * size for name, values in self.position.items()
        }
        if not np.nan_to_num(columns["z_um"]).any():
            columns["z_um"][:] = np.nan
        tick = seconds(self.facts.get("timeUnits"))
        interval = (
            number(self.facts, "frameInterval") * tick if tick and "frameInterval" in self.facts else None
        )
        return Imported(
            format="tracks of TrackMate",
            frame=np.array(self.frame, np.int64),
            track=np.array(self.track, np.int64),
            columns=columns,
            frame_interval_s=interval if interval and math.isfinite(interval) and interval > 0 else None,
        )


def _length_um(path: Path, unit: str, assumed: Assumed) -> float:
    """The size of the file's unit of length, um. Raises `SourceError` if it is not known and not given."""
    size = length_um(unit)
    if size is None:
        size = assumed.length_um
    if size is None:
        what = "in pixels; give --pixel-size" if is_pixels(unit) else f"in {unit!r}; give --length-unit"
        raise SourceError(f"{path}: lengths are {what}")
    return size
