"""Sorts rows by track, from pieces of a file; the order of rows takes four bytes a row, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tracking.trajectories.columns import IntArray, Trajectories

RowArray = npt.NDArray[Any]
MOST_SHORT = 1 << 32


@dataclass(frozen=True, slots=True)
class ByTrack:
    """`order` (N,) sorts rows by track, then frame; track `number[i]` is `order[first[i] : first[i + 1]]`."""

    order: RowArray
    number: IntArray
    first: IntArray

    def __iter__(self) -> Iterator[RowArray]:
        """The rows of each track, in order of frames."""
        for start, stop in zip(self.first[:-1], self.first[1:], strict=True):
            yield self.order[start:stop]


class TrackLengths:
    """Rows of each track by its number; `add` all rows."""

    def __init__(self) -> None:
        self.rows = 0
        self._length = np.zeros(0, np.int64)

    def add(self, track: IntArray) -> None:
        """Count rows (N,) of these tracks."""
        self.rows += len(track)
        counts = np.bincount(track) if len(track) else np.zeros(0, np.int64)
        if len(counts) > len(self._length):
            counts[: len(self._length)] += self._length
            self._length = counts
        else:
            self._length[: len(counts)] += counts

    @property
    def number(self) -> IntArray:
        """The tracks that have rows."""
        found: IntArray = np.flatnonzero(self._length)
        return found

    def of(self, track: Any) -> IntArray:
        """The rows of tracks, by their numbers."""
        found: IntArray = self._length[track]
        return found


def ordered(tracks: Iterable[IntArray], lengths: TrackLengths) -> ByTrack:
    """Sort by track; `tracks` are the track numbers of all rows, in pieces and in order of frames."""
    number = lengths.number
    first = np.concatenate([[0], np.cumsum(lengths.of(number))]).astype(np.int64)
    free = np.zeros(int(number[-1]) + 1 if number.size else 0, np.int64)
    free[number] = first[:-1]
    order = np.empty(lengths.rows, np.uint32 if lengths.rows < MOST_SHORT else np.int64)
    start = 0
    for track in tracks:
        by = np.argsort(track, kind="stable")
        found, at, count = np.unique(track[by], return_index=True, return_counts=True)
        places = np.arange(len(track)) + np.repeat(free[found] - at, count)
        order[places] = by + start
        free[found] += count
        start += len(track)
    return ByTrack(order, number, first)


def by_track(trajectories: Trajectories) -> ByTrack:
    """Sort by track; rows come in the order of frames, which a stable sort keeps within a track."""
    lengths = TrackLengths()
    lengths.add(trajectories.track)
    return ordered([trajectories.track], lengths)
