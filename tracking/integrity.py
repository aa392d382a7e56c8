"""Rows that cannot be true: a file whose middle was overwritten reads without an error, but not sensibly."""

from __future__ import annotations

import numpy as np

from tracking.trajectory_schema import RecordArray

BIRTHS_LOST = 1 << 24


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
        return f"row {start + at} says track {rows['track'][at]}, more than were ever born"
    return ""
