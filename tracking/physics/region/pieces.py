"""Cuts tracks into pieces over which the velocity of a particle that flows changes little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tracking.physics.region.geometry import Region
from tracking.physics.tracks.velocities import MIN_LENGTH, TrackVelocities, track_velocities

FloatArray = npt.NDArray[np.float64]

LONGEST = 0.5
"""Path of a piece, over the depth or the narrowest opening, whichever is less. The mean over the path is exact for a
cubic velocity (`places`); what a longer piece would know better is localisation error, not Brownian motion."""


def velocities_of_pieces(
    region: Region,
    track: npt.ArrayLike,
    time_s: npt.ArrayLike,
    position_um: npt.ArrayLike,
    sigma_um: npt.ArrayLike,
    diffusion_um2_s: float | None = None,
) -> TrackVelocities:
    """As `track_velocities`, with a velocity for each piece of a track of at least `MIN_LENGTH` detections.

    Each has the name of its track. A track is cut into parts with about as many detections each.
    """
    names, times = np.asarray(track).astype(np.int64), np.asarray(time_s, np.float64)
    places = np.asarray(position_um, np.float64)
    order = np.lexsort((times, names))
    own, start, length = np.unique(names[order], return_index=True, return_counts=True)
    ends = places[:2, order[start + length - 1]] - places[:2, order[start]]
    widths = [float(np.linalg.norm(np.subtract(*region.side_um(side)))) for _, side in region.openings]
    longest_um = LONGEST * min(region.depth_um, *widths)
    wanted = np.ceil(np.nan_to_num(np.linalg.norm(ends, axis=0)) / longest_um).astype(np.int64)
    count = np.clip(wanted, 1, np.maximum(length // MIN_LENGTH, 1))
    of = np.repeat(np.arange(own.size), length)
    rank = np.arange(names.size) - np.repeat(start, length)
    piece = np.empty(names.size, np.int64)
    first = np.concatenate([[0], np.cumsum(count)])
    piece[order] = first[of] + rank * count[of] // length[of]
    found = track_velocities(piece, times, places, np.asarray(sigma_um, np.float64), diffusion_um2_s)
    return replace(found, track=own[np.searchsorted(first, found.track, side="right") - 1])
