"""Frames, rows and events that wait for the next commit, as the file stores them."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream.messages import Tracks
from stream.volume_info import VolumeInfo
from tracking.trajectories.decisions import as_columns
from tracking.trajectories.more import entries_of
from tracking.trajectories.precision import rounded
from tracking.trajectories.property_rows import entries_of as properties_of
from tracking.trajectories.property_rows import names_as_stored
from tracking.trajectories.schema import FRAME, MORE, PROPERTY, ROW, SLICE, RecordArray, encode_event
from tracking.trajectories.slices import SlicesOfOneFile
from tracking.trajectories.slices import entries_of as slices_of


def _of_volume(volume: VolumeInfo | None) -> tuple[int, int]:
    """The columns `slices` and `upwards` of a frame."""
    return (0, 0) if volume is None else (volume.slices - len(volume.missing), int(volume.upwards))


class Commit(NamedTuple):
    """What is written at once, in this order: rows (ROW), what more is known of them (MORE), names of properties
    that are new, properties of their particles (PROPERTY), slices of volumes (SLICE), events (bytes), and the
    frames (FRAME), which say that the others are there."""

    rows: RecordArray
    more: RecordArray
    names: npt.NDArray[np.bytes_]
    properties: RecordArray
    slices: RecordArray
    events: npt.NDArray[np.uint8]
    frames: RecordArray


class Pending:
    """What has been appended since the last commit.

    `properties` are the names of the particles' properties so far; it grows.
    """

    def __init__(self, properties: list[str]) -> None:
        self._names = properties
        self._properties: list[RecordArray] = []
        self._rows: list[RecordArray] = []
        self._more: list[RecordArray] = []
        self._count = 0
        self._frames: list[tuple[Any, ...]] = []
        self._slices: list[RecordArray] = []
        self._events: list[bytes] = []

    @property
    def has_frames(self) -> bool:
        """Whether a frame waits."""
        return bool(self._frames)

    @property
    def has_events(self) -> bool:
        """Whether an event waits."""
        return bool(self._events)

    @property
    def rows(self) -> int:
        """How many rows wait."""
        return self._count

    def append(self, tracks: Tracks) -> None:
        """Take a copy of a frame's tracks, rounded as `precision` says."""
        rows = np.empty(len(tracks), ROW)
        for name in Tracks.COLUMNS:
            if name in ROW.fields:  # type: ignore[operator]
                rows[name] = rounded(name, getattr(tracks, name))
        info = tracks.info
        rows["frame"] = info.frame
        self._rows.append(rows)
        more = entries_of(tracks)
        more["row"] += np.uint64(self._count)
        self._more.append(more)
        properties = properties_of(tracks, self._names)
        properties["row"] += np.uint64(self._count)
        self._properties.append(properties)
        self._count += len(rows)
        self._frames.append(
            (
                info.frame, info.camera_frame, info.time_s, info.wall_s, info.focus_um, info.flow_ul_s,
                info.exposure_ms, 0, len(rows), 0, info.age_ms, *as_columns(info.decisions),
                *_of_volume(info.volume), 0, 0,
            )
        )  # fmt: skip
        self._slices.append(slices_of(info.volume))

    def event(self, kind: str, text: str, fields: dict[str, object]) -> None:
        """Take an event that happened now."""
        self._events.append(encode_event(time.time(), kind, text, fields))

    def arrays(self, first_row: int, number: int, places: SlicesOfOneFile, named: int = 0) -> Commit:
        """The commit with this `number` of a file in which its rows begin at `first_row`.

        `named` properties have their names in the file.
        """
        rows = np.concatenate(self._rows) if self._rows else np.empty(0, ROW)
        more = np.concatenate(self._more) if self._more else np.empty(0, MORE)
        more["row"] += np.uint64(first_row)
        properties = np.concatenate([np.empty(0, PROPERTY), *self._properties])
        properties["row"] += np.uint64(first_row)
        names = names_as_stored(self._names[named:])
        frames = np.array(self._frames, FRAME)
        frames["first_row"] = first_row + np.cumsum(frames["rows"], dtype=np.uint64) - frames["rows"]
        frames["commit"] = number
        new = [np.empty(0, SLICE)]
        for frame, entries in zip(frames, self._slices, strict=True):
            if len(entries):
                first, is_new = places.place(entries)
                frame["first_slice"], frame["slice_rows"] = first, len(entries)
                new += [entries] * is_new
        happened = np.frombuffer(b"".join(self._events), np.uint8)
        return Commit(rows, more, names, properties, np.concatenate(new), happened, frames)
