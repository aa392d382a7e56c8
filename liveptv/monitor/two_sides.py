"""For the page: how many of the particles in view could be on either side of focus, over the last ten seconds."""

from __future__ import annotations

from collections import deque

import numpy as np

from liveptv.monitor.depth_cover import MEMORY_S
from liveptv.reports.sides import SURE, Sides
from stream.messages import TrackFlag, Tracks


class TwoSides:
    """Takes the tracks of each frame."""

    def __init__(self) -> None:
        self._frames: deque[tuple[float, float, float, float, float]] = deque()

    def add(self, tracks: Tracks) -> None:
        """Count one frame: its particles, those with two depths, the decided ones, and their probabilities."""
        seen = tracks.flags.astype(np.int64) & int(TrackFlag.PREDICTED) == 0
        p_side = tracks.p_side[seen]
        p_side = p_side[np.isfinite(p_side)]
        time_s = tracks.info.time_s
        counted = float(seen.sum()), float(p_side.size), float((p_side > SURE).sum()), float(p_side.sum())
        self._frames.append((time_s, *counted))
        while not 0 <= time_s - self._frames[0][0] <= MEMORY_S:
            self._frames.popleft()  # too old, or of a clock that was set back

    def sides(self, changes: int) -> Sides | None:
        """A frame's mean of the last ten seconds; None where no image fitted two depths. `changes` as counted."""
        if not self._frames:
            return None
        particles, two, sure, p_side = np.array(self._frames)[:, 1:].mean(axis=0).tolist()
        return Sides(particles, two, sure, p_side / two, changes) if two else None
