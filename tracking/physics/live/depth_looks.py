"""Looks at the heights of some tracks over many frames, for D along the depth while a run goes on.

Depths are uncertain by more than a particle moves between frames, and their errors last over frames: a look in the
plane, of eight displacements, cannot tell them from diffusion (`tracking.physics.diffusion.averages`).
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.typing as npt

from stream.messages import Tracks
from tracking.physics.diffusion.averages import (
    BLOCKS,
    FEWEST_STEPS,
    AveragedDiffusion,
    block_moments,
    from_averages,
    together,
)
from tracking.physics.diffusion.covariance import Moments
from tracking.physics.diffusion.segments import cut_into_segments

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FOLLOWED = 128
"""Tracks that are followed at a time at most: what a frame costs is mostly to find them among all."""
FRAMES = BLOCKS[-1] * (FEWEST_STEPS + 1) + 1
"""Of a look at most: as many as the longest blocks need."""
LONGEST_S = 4.0  # of a look: slow cameras have fewer frames in it, and with them shorter blocks
PERIOD_S = 1.0  # between the beginnings of two looks at least: fast cameras need not be followed all the time
LEAST_FRAMES = 2 * (FEWEST_STEPS + 1)  # of a look: two block lengths can be compared
KEPT = 40  # looks that D is from, the oldest are dropped

TRACK, HEIGHT, OFFSET = (Tracks.COLUMNS.index(name) for name in ("track", "z_um", "time_offset_s"))


class DepthLooks:
    """Follows the heights of some tracks; `found` is D along the depth from the newest looks."""

    def __init__(self, refraction_factor: float = 1.0) -> None:
        self._factor = refraction_factor
        self._names: IntArray = np.empty(0, np.int64)
        self._rows: list[FloatArray] = []
        self._began_s = -math.inf
        self._done: deque[list[Moments]] = deque(maxlen=KEPT)

    def update(self, tracks: Tracks) -> None:
        """Add one frame's tracks; predicted, tentative and second ones do not count, nor those without a height."""
        info = tracks.info
        if not self._rows:
            if self._began_s + PERIOD_S > info.time_s >= self._began_s:
                return
            fit = np.flatnonzero(tracks.counted)
            names = np.sort(tracks.track[fit].astype(np.int64))
            # old and new ones: the oldest are the slow ones, near the walls
            self._names = names[:: -(-names.size // FOLLOWED)] if names.size else names
            if not self._names.size:
                return
            self._began_s = info.time_s
        some_left = self._add(tracks)
        late = info.time_s - self._began_s >= LONGEST_S and len(self._rows) >= LEAST_FRAMES
        if late or not some_left or len(self._rows) >= FRAMES or info.time_s < self._began_s:
            self._finish()

    def _add(self, tracks: Tracks) -> bool:
        """Keep the heights of one frame; whether a track that is followed is in it, if only as a prediction."""
        info = tracks.info
        name = tracks.table[TRACK].astype(np.int64)
        at = np.minimum(np.searchsorted(self._names, name), self._names.size - 1)
        followed = self._names[at] == name
        mine = np.flatnonzero(followed & tracks.counted)
        focus_um = info.focus_um if math.isfinite(info.focus_um) else 0.0
        height = self._factor * (focus_um + tracks.table[HEIGHT, mine])
        time_s = info.time_s + np.nan_to_num(tracks.table[OFFSET, mine])
        self._rows.append(np.stack([name[mine].astype(np.float64), time_s, height]))
        return bool(followed.any())

    def _finish(self) -> None:
        name, time_s, height = np.concatenate(self._rows, axis=1)
        self._rows = []
        # one row of a track at a time: a time that comes twice (a camera that stands still) says nothing new
        order = np.lexsort((time_s, name))
        again = (np.diff(name[order], prepend=np.nan) == 0) & (np.diff(time_s[order], prepend=np.nan) <= 0)
        kept = order[~again]
        segments = cut_into_segments(name[kept], time_s[kept], height[None, kept], longest=FRAMES)
        if segments.steps.size:
            self._done.append(block_moments(segments, 0))

    def found(self, plane: tuple[float, float]) -> AveragedDiffusion | None:
        """D along the depth, with D in the plane and its standard error, um^2/s; None while nothing is known."""
        done = list(self._done)  # `update` may go on in another thread
        return from_averages(together(done), plane) if done else None
