"""Rows with the tracks that they belong to as was known a frame later.

A row that says `track_before` = y, of track x, says that the row y of the frame before is x's. All rows of a frame
say so at once: where x and y exchange theirs, either says it. Where nobody says whose row x of that frame is (it
has only a prediction), it gets the number that is free then, so that every row has a track of its own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tracking.trajectories.schema import NO_TRACK, ROW, RecordArray

IntArray = npt.NDArray[np.int64]


def renamed(numbers: IntArray, was: IntArray, now: IntArray) -> IntArray:
    """The `numbers` (N,) of a frame's rows once those of `was` (K,) are `now` (K,)."""
    to = dict(zip(was.tolist(), now.tolist(), strict=True))
    giver = {number: name for name, number in to.items()}
    for number in [number for number in giver if number not in to]:
        first = number
        while first in giver:
            first = giver[first]
        to[number] = first
    return np.array([to.get(number, number) for number in numbers.tolist()], np.int64)


class AsLinked:
    """Takes the rows of a file in order, in pieces of any size, and gives them back as they are known.

    The rows of the last frame are kept until the next piece: `rest` has them in the end.
    """

    def __init__(self) -> None:
        self._kept: RecordArray = np.empty(0, ROW)

    def take(self, rows: RecordArray, entries: RecordArray, start: int) -> RecordArray:
        """Take rows (ROW), which begin at row `start`, and their `entries` (MORE); returns all rows but the last
        frame's."""
        if not len(rows):
            return rows
        all_rows = np.concatenate([self._kept, rows])
        told = entries[entries["track_before"] != NO_TRACK]
        if len(told):
            frames = all_rows["frame"]
            at = told["row"].astype(np.int64) - start + len(self._kept)
            for frame in np.unique(frames[at]).tolist():
                of_frame = at[frames[at] == frame]
                was = told["track_before"][frames[at] == frame]
                stop = int(np.searchsorted(frames, frame))
                if stop:
                    begin = int(np.searchsorted(frames, frames[stop - 1]))
                    before = all_rows["track"][begin:stop].astype(np.int64)
                    all_rows["track"][begin:stop] = renamed(
                        before, was, all_rows["track"][of_frame].astype(np.int64)
                    )
        last = int(np.searchsorted(all_rows["frame"], all_rows["frame"][-1]))
        self._kept = all_rows[last:].copy()
        return all_rows[:last]

    def rest(self) -> RecordArray:
        """The rows of the last frame."""
        kept, self._kept = self._kept, np.empty(0, ROW)
        return kept
