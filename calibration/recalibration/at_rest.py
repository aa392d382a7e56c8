"""Particles at rest: stuck to a wall, they stand still while the focus may move."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from calibration.recalibration.sightings import Recorded

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEWEST_ROWS = 8
"""Fewest images of a particle that tell that it stands still: its scatter is then known to a quarter."""
MOST_SIGMAS = 3.0
"""Scatter in the plane, over the stated standard error, up to which a particle is at rest: errors of real optics
are up to twice the stated ones, and a drift by as much as an error over the run would add half of one."""
LEAST_PX = 0.1
"""Scatter, px, that is always allowed: vibration and drift of a stage."""
FOLLOWS = 0.3
"""Part by which the depth's change may differ from the focus's, where that moved far enough to tell."""
TELLS_SIGMAS = 20.0
"""Range of the focus over the standard error of depth from which it is far enough."""


def tracks_at_rest(recorded: Recorded, usable: npt.NDArray[np.bool_]) -> IntArray:
    """Tracks whose `usable` rows (N,) stay in place, but for what follows the focus.

    Images walk with depth, so that a particle may move with the focus in a straight line; its depth must then fall
    as the focus rises.
    """
    found = []
    order = np.argsort(recorded.track, kind="stable")
    order = order[usable[order]]
    starts = np.flatnonzero(np.diff(recorded.track[order], prepend=-1))
    for rows in np.split(order, starts[1:]) if order.size else []:
        if rows.size >= FEWEST_ROWS and _rests(recorded.part(rows)):
            found.append(int(recorded.track[rows[0]]))
    return np.array(found, np.int64)


def _rests(rows: Recorded) -> bool:
    focus_um = rows.focus_um - np.nanmean(rows.focus_um) if np.isfinite(rows.focus_um).any() else None
    sigma_z_um = float(np.nanmedian(rows.sigma_z_um))
    moved = (
        focus_um is not None and np.isfinite(focus_um).all() and np.ptp(focus_um) > TELLS_SIGMAS * sigma_z_um
    )
    design = [np.ones(len(rows))]
    if moved and focus_um is not None:
        design.append(focus_um)
        slope = float(np.polyfit(focus_um, rows.z_um, 1)[0])
        if abs(slope + 1) > FOLLOWS:
            return False
    matrix = np.column_stack(design)
    limit = max(MOST_SIGMAS * float(np.nanmedian(rows.sigma_xy_px)), LEAST_PX)
    for place in (rows.x_px, rows.y_px):
        left = place - matrix @ np.linalg.lstsq(matrix, place, rcond=None)[0]
        if float(np.sqrt(np.mean(left**2))) > limit:
            return False
    return True
