"""Limit on the rows of a frame's tracks that a message holds: predicted rows are left out, measured ones never."""

from __future__ import annotations

import numpy as np

from stream.messages import Tracks


def without_excess(tracks: Tracks, most: int | None) -> tuple[Tracks, int]:
    """The tracks of a frame with at most so many rows (None: all), and how many predicted ones are left out."""
    excess = len(tracks) - most if most is not None else 0
    if excess <= 0:
        return tracks, 0
    predicted = np.flatnonzero(tracks.detection < 0)
    tells = ~np.isnan(tracks.track_before[predicted])  # what else would be lost comes last
    predicted = predicted[np.argsort(tells, kind="stable")][:excess]
    kept = np.delete(np.arange(len(tracks)), predicted)
    return tracks.of(kept), len(predicted)
