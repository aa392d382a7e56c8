"""Finds some tracks again in each frame: where they are, in one pass over the frame's table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from stream.messages import Tracks
from tracking.physics.live.track_sums import (
    AXES,
    NOTHING_HERE,
    OFFSET_S,
    ROW_FLAGS,
    TRACK,
    X_UM,
    place_of_name,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

ROOM_OF_PLACES = 4
"""Places in the table of names for each track: three of four stay empty, and a name is found at once."""


class Followed:
    """Up to `most` tracks that are followed from frame to frame; others join as long as there is room."""

    def __init__(self, most: int, refraction_factor: float) -> None:
        self._most, self._factor = most, refraction_factor
        self._names = np.empty(most, np.int64)
        self._places = np.empty(2 ** math.ceil(math.log2(ROOM_OF_PLACES * most)), np.int64)
        self._count = 0

    def begin(self, tracks: Tracks) -> None:
        """Follow those of a frame from now on, of many some of each age: the oldest are slow ones near walls."""
        names = tracks.track[tracks.counted]
        if names.size > self._most:
            some = np.linspace(0, names.size - 1, self._most).astype(np.int64)
            names = np.sort(names)[some]
        self._count = names.size
        self._names[: self._count] = names
        self._places[:] = NOTHING_HERE
        put(self._names, self._count, self._places)

    def see(self, tracks: Tracks) -> tuple[FloatArray, bool]:
        """x, y, height, um, and time, s, of each track that is followed, (tracks, 4), NaN where it is not counted.

        Also whether any of them is in the frame at all, if only as a prediction.
        """
        info = tracks.info
        now = np.empty((self._most, AXES + 1))
        focus_um = info.focus_um if math.isfinite(info.focus_um) else 0.0
        self._count, some_left = see_frame(
            self._names, self._count, self._places, tracks.table, info.time_s, focus_um, self._factor, Tracks.UNFIT,
            now,
        )  # fmt: skip
        return now[: self._count], some_left

    @property
    def names(self) -> IntArray:
        """Numbers of the tracks, in the order of `see`."""
        return self._names[: self._count].copy()


@njit(cache=True, nogil=True, error_model="numpy")
def put(names: Any, count: int, places: Any) -> None:
    """Note in `places` where each of the first `count` names is."""
    for at in range(count):
        places[place_of_name(names[at], names, places)] = at


@njit(cache=True, nogil=True, error_model="numpy")
def see_frame(
    names: Any,
    count: int,
    places: Any,
    table: Any,
    frame_s: float,
    focus_um: float,
    factor: float,
    left_out: int,
    now: Any,
) -> tuple[int, bool]:
    """Find the tracks `names` (room,), the first `count`, in a frame's table; how many there are then, and whether
    one of them was in it.

    `now` (room, 4) becomes x, y, `factor` times (`focus_um` + z) and the time of each, NaN without a row, or with
    one that has flags in `left_out`. Tracks that are not among them join while there is room.
    """
    now[:] = np.nan
    some_left = False
    for row in range(table.shape[1]):
        name = int(table[TRACK, row])
        place = place_of_name(name, names, places)
        at = places[place]
        if at != NOTHING_HERE:
            some_left = True
        if (int(table[ROW_FLAGS, row]) & left_out) != 0:
            continue
        if at == NOTHING_HERE:
            if count == names.size:
                continue
            at = places[place] = count
            names[count] = name
            count += 1
        for axis in range(AXES):
            now[at, axis] = table[X_UM + axis, row]
        now[at, AXES - 1] = factor * (focus_um + now[at, AXES - 1])
        offset_s = table[OFFSET_S, row]
        now[at, AXES] = frame_s + (offset_s if math.isfinite(offset_s) else 0.0)
    return count, some_left
