"""Finds rows that cannot be true: a file whose middle was overwritten can be read without an error of HDF5."""

from __future__ import annotations

import numpy as np

from tracking.trajectories.schema import RecordArray
from tracking.trajectories.slices import unfit_slices

BIRTHS_LOST = 1 << 24
"""Tracks that may have been born in frames that did not reach the file. 17 million are more than any run loses; of
random 32-bit numbers all but 1 in 250 are larger, so that overwritten rows are found."""


def nonsense_in_rows(rows: RecordArray, start: int, frames: RecordArray) -> str:
    """Why these rows (ROW) cannot belong to the frames (FRAME, committed) they are stored under, or "".

    `start` is where they begin in the file. Each row repeats its frame's number; track numbers count births,
    and each birth has a row, unless its frame was lost on the way to the file.
    """
    if len(rows) == 0:
        return ""
    first = int(np.searchsorted(frames["first_row"], start, side="right")) - 1
    last = int(np.searchsorted(frames["first_row"], start + len(rows), side="left"))
    covering = frames[max(first, 0) : last]
    expected = np.repeat(covering["frame"], covering["rows"])
    expected = expected[start - int(covering["first_row"][0]) :][: len(rows)]
    if len(expected) != len(rows):
        return f"rows {start} to {start + len(rows)} belong to no frame"
    wrong = np.flatnonzero(rows["frame"] != expected)
    if wrong.size:
        at = int(wrong[0])
        return f"row {start + at} is stored under frame {expected[at]} and says {rows['frame'][at]}"
    wrong = np.flatnonzero(rows["track"] > start + len(rows) + BIRTHS_LOST)
    if wrong.size:
        at = int(wrong[0])
        return f"row {start + at} says track {rows['track'][at]}, but there cannot be that many tracks"
    return ""


def nonsense_in_frames(table: RecordArray, count: int, stored_rows: int, stored_slices: int) -> str:
    """Why the entries of `/frames` (FRAME) cannot be those of a finished file, or "".

    `count` of them are committed. A writer that finishes a file cuts off what it did not commit, so nothing may
    follow; only a file that was not finished may have a torn end.
    """
    rest = np.flatnonzero(table["commit"][count:] > 0)
    if rest.size:
        at = count + int(rest[0])
        first, rows = table["first_row"][at], table["rows"][at]
        return f"entry {at} of /frames names {rows} rows from {first}, which do not fit"
    named = int(table["first_row"][count - 1]) + int(table["rows"][count - 1]) if count else 0
    if stored_rows > named:
        return f"{stored_rows - named} of its {stored_rows} rows belong to no frame"
    wrong = np.flatnonzero(table["frame"][1:count] <= table["frame"][: max(count - 1, 0)])
    if wrong.size:
        at = int(wrong[0]) + 1
        return f"frame {table['frame'][at]} is stored after frame {table['frame'][at - 1]}"
    return unfit_slices(table[:count], stored_slices)
