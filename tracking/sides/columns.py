"""The array that holds the two branches of every track, and how its columns follow the tracks.

All tracks are columns of `sides` (SIDES, capacity), in the order of the tracks. Lengths are um, times s.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from stream.messages import Detections, Tracks
from tracking import kalman
from tracking.index_type import Index
from tracking.kalman import FARTHEST_UM, Measured

ID, IS_OPEN, SINCE, ABSENT_FRAMES, SEEN_FRAMES = 0, 1, 2, 3, 4
Z, V, PP, PV, VV = 5, 7, 9, 10, 11  # Z and V: of the chosen branch, then of the other
XY, VXY, PP_XY, PV_XY, VV_XY = 12, 14, 16, 18, 20
STEPS, IMAGE, IMAGES, ODDS, REVISED, GATE_Z = 22, 23, 24, 25, 26, 27
OWN = 28  # samples of its own in the flow field, at the place of the chosen branch, and at that of the other
FOCUS, FOCUS_V = 30, 31  # the focus position, filtered like the branches
SIDES = 32
OTHER_Z, IMAGE_ODDS, NOT_CHOSEN = 0, 1, 2
SECONDS = 3

SMALLEST_P = 1e-3  # of a single image: what it says of itself cannot be surer than a share of bad images
Z_OTHER, P_OTHER = Detections.COLUMNS.index("z_other_um"), Detections.COLUMNS.index("p_other")
OUT_DETECTION, OUT_Z_OTHER, OUT_P_SIDE, OUT_REVISED, OUT_SPEED, OUT_SIGMA_SPEED = (
    Tracks.COLUMNS.index(name)
    for name in ("detection", "z_other_um", "p_side", "revised", "vx_um_s", "sigma_vx_um_s")
)


@njit(cache=True, nogil=True, error_model="numpy")
def take_seconds(measured: Any, count: int, height: float, seconds: Any) -> None:
    """The second depths of `count` usable detections, as heights, and the log-odds of the first ones.

    `seconds` (3, M): height, log-odds, and the depth that is not chosen (the second, until a track chooses it).
    """
    measured = Measured(*measured)
    origin, table = measured.origin, measured.table
    for j in range(count):
        z = table[Z_OTHER, origin[j]]
        p = table[P_OTHER, origin[j]]
        if not (p >= 0.0 and p <= 1.0):
            p = 0.5
        p = min(max(p, SMALLEST_P), 1.0 - SMALLEST_P)
        seconds[OTHER_Z, j] = z + height if abs(z) < FARTHEST_UM else np.nan
        seconds[IMAGE_ODDS, j] = math.log((1.0 - p) / p)
        seconds[NOT_CHOSEN, j] = seconds[OTHER_Z, j]


@njit(cache=True, nogil=True, error_model="numpy")
def align(sides: Any, count: int, label: Any, alive: int) -> int:
    """Keep the columns of the tracks that are alive, in their order; returns how many there are.

    Tracks are in order of their numbers in both, and new ones come last: they have no column yet.
    """
    at = Index(0)
    kept = Index(0)
    for i in range(alive):
        while at < count and sides[ID, at] < label[kalman.ID, i]:
            at += 1
        if at == count or sides[ID, at] != label[kalman.ID, i]:
            break
        if at != kept:
            for row in range(SIDES):
                sides[row, kept] = sides[row, at]
        kept += 1
        at += 1
    return kept


@njit(cache=True, nogil=True, error_model="numpy")
def extend(sides: Any, count: int, label: Any, alive: int) -> None:
    """Add columns without branches for the tracks `count` to `alive`."""
    for i in range(count, alive):
        for row in range(SIDES):
            sides[row, i] = 0.0
        sides[ID, i] = label[kalman.ID, i]


@njit(cache=True, nogil=True, error_model="numpy")
def write(
    sides: Any, alive: int, rows: Any, measured: Any, detections: int, seconds: Any, height: float
) -> int:
    """Write the other depth, the probability of the chosen one, and revisions into the rows of `Tracks`.

    Returns how many tracks are revised; `seconds` is used up.
    """
    measured = Measured(*measured)
    revised = 0
    for j in range(detections):  # by the detection's row from here on
        seconds[OTHER_Z, measured.origin[j]] = seconds[NOT_CHOSEN, j]
    for i in range(alive):
        if sides[IS_OPEN, i] == 0.0:
            continue
        other = sides[Z + 1, i]
        if rows[OUT_DETECTION, i] >= 0.0:
            other = seconds[OTHER_Z, Index(rows[OUT_DETECTION, i])]
        if np.isnan(other):
            continue
        rows[OUT_Z_OTHER, i] = other - height
        rows[OUT_P_SIDE, i] = 1.0 / (1.0 + math.exp(-sides[ODDS, i]))
        if sides[REVISED, i] > 0.0:
            rows[OUT_REVISED, i] = sides[REVISED, i]
            revised += 1
    return revised
