"""How the volumes of a run were taken, slice by slice, as the file keeps it.

`/slices` has one row (SLICE) for each slice of a volume: its height, its time, and whether it is missing. Where a
volume was taken exactly like one of the last few, it is not written again: its entry in `/frames` names the same
rows. A constant scan without measured times takes the rows of one volume, or of two if it goes up and down. The
rows of a commit are written before its frames, so that those of committed frames are complete.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator

import h5py
import numpy as np

from stream.volume_info import MOST_SLICES, VolumeInfo
from tracking.trajectories.schema import SLICE, RecordArray

REMEMBERED = 8
"""Ways of taking a volume that are looked for: up and down, and with one or another slice missing. More would only
save rows of volumes that lack the same slices as one long before."""

BLOCK = 1000  # frames whose slices are read at once: 170 kB where each has ten of its own


def entries_of(volume: VolumeInfo | None) -> RecordArray:
    """The rows (SLICE) of a volume; none for an image. Times that are not known are NaN."""
    entries = np.zeros(0 if volume is None else volume.slices, SLICE)
    if volume is not None:
        entries["z_um"] = volume.z_um
        entries["time_s"] = volume.time_s or np.nan
        entries["missing"][list(volume.missing)] = 1
    return entries


def volume_of(entries: RecordArray, upwards: bool) -> VolumeInfo | None:
    """Undo `entries_of`; `upwards` is in `/frames`. Raises `ValueError` for rows that no volume can have."""
    if not len(entries):
        return None
    times_s = entries["time_s"]
    return VolumeInfo(
        z_um=tuple(entries["z_um"].tolist()),
        time_s=() if np.isnan(times_s).all() else tuple(times_s.tolist()),
        missing=tuple(np.flatnonzero(entries["missing"]).tolist()),
        upwards=upwards,
    )


class SlicesOfOneFile:
    """Where the slices of the next volume go in a file: to new rows, or nowhere because they are there."""

    def __init__(self, written: int = 0) -> None:
        """`written` is how many rows the file has."""
        self._next = written
        self._known: OrderedDict[bytes, int] = OrderedDict()

    def place(self, entries: RecordArray) -> tuple[int, bool]:
        """The first row of a volume's `entries` (SLICE), and whether they are to be written there."""
        key = entries.tobytes()
        is_new = key not in self._known
        if is_new:
            self._known[key] = self._next
            self._next += len(entries)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key], is_new


class SliceRows:
    """Reads the volumes of frames from an open file, which may grow."""

    def __init__(self, dataset: h5py.Dataset | None) -> None:
        self._dataset = dataset

    @property
    def count(self) -> int:
        """How many rows there are, those that are not committed included."""
        return 0 if self._dataset is None else int(self._dataset.shape[0])

    def refresh(self) -> None:
        """See what a live writer has added."""
        if self._dataset is not None:
            self._dataset.refresh()

    def volumes(self, frames: RecordArray) -> Iterator[VolumeInfo | None]:
        """How each of `frames` (FRAME) was taken; None for images and where an older file does not say.

        Raises `ValueError` for rows that are not there, or cannot be those of a volume.
        """
        for at in range(0, len(frames), BLOCK):
            yield from self._volumes(frames[at : at + BLOCK])

    def _volumes(self, frames: RecordArray) -> Iterator[VolumeInfo | None]:
        found: dict[tuple[int, int, bool], VolumeInfo | None] = {}
        begins, pieces = self._rows_of(frames)
        for frame in frames:
            first, count = int(frame["first_slice"]), int(frame["slice_rows"])
            upwards = bool(frame["upwards"])
            if not count:
                yield None
                continue
            key = first, count, upwards
            if key not in found:
                at = bisect_right(begins, first) - 1
                found[key] = volume_of(pieces[at][first - begins[at] :][:count], upwards)
            yield found[key]

    def _rows_of(self, frames: RecordArray) -> tuple[list[int], list[RecordArray]]:
        """The rows that these frames name, in as few pieces as there are: where each begins, and its rows."""
        named = frames[frames["slice_rows"] > 0]
        if not len(named):
            return [], []
        unfit = unfit_slices(frames, self.count)
        if unfit or self._dataset is None:
            raise ValueError(unfit)
        places = np.column_stack([named["first_slice"], named["slice_rows"]]).astype(np.int64)
        places = np.unique(places, axis=0)
        first, end = places[:, 0], np.maximum.accumulate(places.sum(axis=1))
        gaps = np.flatnonzero(first[1:] > end[:-1])
        begins, ends = first[[0, *(gaps + 1)]].tolist(), end[[*gaps, -1]].tolist()
        return begins, [self._dataset[begin:stop] for begin, stop in zip(begins, ends, strict=True)]


def unfit_slices(frames: RecordArray, stored: int) -> str:
    """Which of the `frames` (FRAME) names slices that cannot be among the `stored` rows, or ""."""
    room = stored - np.minimum(frames["first_slice"], np.uint64(stored)).astype(np.int64)
    most = np.minimum(room, MOST_SLICES)
    for frame in frames[frames["slice_rows"] > most][:1]:
        return (
            f"frame {frame['frame']} names {frame['slice_rows']} slices from row {frame['first_slice']}, "
            "which do not fit"
        )
    return ""


def named_slices(frames: RecordArray) -> int:
    """Up to which row `frames` (FRAME, committed) name slices; behind it is what was not committed."""
    there = frames[frames["slice_rows"] > 0]
    return int((there["first_slice"] + there["slice_rows"]).max()) if len(there) else 0


def keep_slices(frames: RecordArray) -> bool:
    """Whether all volumes among `frames` (FRAME) have their slices in the file: those of older files do not."""
    return not ((frames["slices"] > 0) & (frames["slice_rows"] == 0)).any()
