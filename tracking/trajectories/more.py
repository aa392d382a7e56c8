"""What is known of some rows only: the other side of focus, and the kind of particle; and what was decided later.

`/tracks/more` has one entry (MORE) for each row about which more is known, in order of rows; files of earlier
versions and runs without such detections have none. It is written before the frames, so that entries of committed
rows are complete. Where a later row of a track says `revised`, the track's rows of so many frames before were
stored with the wrong side: readers exchange `z_um` and `z_other_um` there.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from stream.messages import Tracks
from tracking.trajectories.precision import rounded
from tracking.trajectories.row_entries import RowEntries
from tracking.trajectories.schema import MORE, NO_KIND, NO_TRACK, RecordArray, with_what_was_detected

FloatArray = npt.NDArray[np.float64]
CLASSES = ("kind", "kind_detected")  # columns of classes, whole numbers in the file


def entries_of(tracks: Tracks) -> RecordArray:
    """The entries (MORE) of a frame's rows; their `row` counts from the frame's first."""
    known = np.zeros(len(tracks), np.bool_)
    for name in (*Tracks.MORE, *Tracks.DETECTED, *Tracks.LINKED):
        known |= ~np.isnan(getattr(tracks, name))
    some = np.flatnonzero(known)
    entries = np.zeros(len(some), MORE)
    entries["row"] = some
    for name in ("z_other_um", "p_side", "p_kind", "time_offset_s", *Tracks.DETECTED):
        if name in CLASSES:
            continue
        entries[name] = rounded(name, getattr(tracks, name)[some])
    most = np.iinfo(MORE["revised"]).max
    entries["revised"] = np.clip(np.nan_to_num(tracks.revised[some]), 0, most)
    for name in CLASSES:
        entries[name] = np.nan_to_num(getattr(tracks, name)[some], nan=NO_KIND)
    entries["track_before"] = np.nan_to_num(tracks.track_before[some], nan=NO_TRACK)
    return entries


def as_columns(entries: RecordArray, rows: int, start: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Columns (`rows`,) of rows from `start` on, NaN where nothing is known."""
    at = entries["row"].astype(np.int64) - start
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in ("z_other_um", "p_side", "p_kind", "time_offset_s"):
        kind = np.float64 if name == "z_other_um" else np.float32
        columns[name] = np.full(rows, np.nan, kind)
        columns[name][at] = entries[name]
    columns["kind"] = np.full(rows, np.nan, np.float32)
    columns["kind"][at] = np.where(entries["kind"] == NO_KIND, np.nan, entries["kind"])
    columns["revised"] = np.zeros(rows, np.uint16)
    columns["revised"][at] = entries["revised"]
    return columns


def what_was_sent(entries: RecordArray, rows: int, start: int = 0) -> dict[str, FloatArray]:
    """The columns `Tracks.DETECTED` and `LINKED` (`rows`,) of rows from `start` on, NaN where nothing is known."""
    at = entries["row"].astype(np.int64) - start
    columns = {name: np.full(rows, np.nan) for name in (*Tracks.DETECTED, *Tracks.LINKED)}
    for name, values in columns.items():
        values[at] = entries[name]
    columns["kind_detected"][columns["kind_detected"] == NO_KIND] = np.nan
    columns["track_before"][columns["track_before"] == NO_TRACK] = np.nan
    return columns


def _holds(name: str, values: npt.NDArray[Any]) -> bool:
    known = {"revised": values > 0, "kind": values != NO_KIND}.get(name, np.isfinite(values))
    return bool(known.any())


class MoreRows(RowEntries):
    """Reads what more is known of rows from an open file."""

    def __init__(self, dataset: h5py.Dataset | None) -> None:
        super().__init__(dataset, MORE, with_what_was_detected)

    def known(self) -> list[str]:
        """Which columns hold anything."""
        found: set[str] = set()
        if not self.is_empty:
            for block in self.blocks():
                found |= {name for name in Tracks.MORE if _holds(name, block[name])}
        return [name for name in Tracks.MORE if name in found]


class Revisions:
    """What later rows say about the side of earlier ones; `add` all pieces of a file in order, then `apply`."""

    def __init__(self) -> None:
        self._found: list[tuple[int, int, int, float, float, float]] = []
        self._keys: npt.NDArray[np.uint64] = np.empty((0, 2), np.uint64)
        self._decided: FloatArray = np.empty((0, 3))
        self._tracks: npt.NDArray[np.uint32] = np.empty(0, np.uint32)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, rows: RecordArray, entries: RecordArray, start: int) -> None:
        """Take the revisions among `rows` (ROW), which begin at `start`, and their `entries` (MORE)."""
        revising = entries[entries["revised"] > 0]
        for entry in revising:
            row = rows[int(entry["row"]) - start]
            frame, back = int(row["frame"]), int(entry["revised"])
            decided = (float(entry["p_side"]), float(row["vz_um_s"]), float(row["sigma_vz_um_s"]))
            self._found.append((int(row["track"]), max(frame - back, 0), frame, *decided))
        if len(revising):
            facts = np.array(self._found)
            tracks = facts[:, 0].astype(np.uint64) << np.uint64(32)
            self._keys = tracks[:, None] | facts[:, 1:3].astype(np.uint64)
            self._decided = facts[:, 3:]
            self._tracks = np.unique(facts[:, 0].astype(np.uint32))

    def apply(self, rows: RecordArray, more: dict[str, npt.NDArray[Any]]) -> RecordArray:
        """The `rows` (ROW) as known now; the columns of `more` are changed as well.

        Exchanged rows have the probability and the velocity in z of the row that decided. `revised` becomes 1 for
        them and 0 for the others.
        """
        more["revised"] = np.zeros(len(rows), np.uint8)
        chosen = np.flatnonzero(np.isin(rows["track"], self._tracks))
        if not chosen.size:
            return rows
        key = rows["track"][chosen].astype(np.uint64) << np.uint64(32) | rows["frame"][chosen]
        order = np.argsort(key, kind="stable")
        chosen, key = chosen[order], key[order]
        edges = np.searchsorted(key, self._keys)
        times = np.zeros(len(key), np.int64)
        last = np.zeros(len(key), np.int64)
        for number in np.flatnonzero(edges[:, 1] > edges[:, 0]).tolist():
            low, high = edges[number]
            times[low:high] += 1
            last[low:high] = number
        at, by = chosen[times % 2 == 1], last[times % 2 == 1]
        known = np.isfinite(more["z_other_um"][at])
        at, by = at[known], by[known]
        rows = rows.copy()
        rows["z_um"][at], more["z_other_um"][at] = more["z_other_um"][at], rows["z_um"][at]
        more["p_side"][at] = self._decided[by, 0]
        rows["vz_um_s"][at], rows["sigma_vz_um_s"][at] = self._decided[by, 1], self._decided[by, 2]
        more["revised"][at] = 1
        return rows
