"""Looks at some tracks over many frames: they tell errors that last over frames from diffusion during a run.

Depths are uncertain by more than a particle moves between frames, and errors may last over frames along each axis:
a look of eight displacements cannot tell them from diffusion (`tracking.physics.diffusion.averages`).
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.typing as npt

from stream.messages import Tracks
from tracking.physics.diffusion.averages import BLOCKS, FEWEST_STEPS, block_moments, together
from tracking.physics.diffusion.covariance import Moments
from tracking.physics.diffusion.segments import cut_into_segments
from tracking.physics.live.followed import Followed

FloatArray = npt.NDArray[np.float64]

FOLLOWED = 128
"""Tracks that are followed at a time at most: their sums cost more than to find them."""
FRAMES = BLOCKS[-1] * (FEWEST_STEPS + 1) + 1
"""Of a look at most: as many as the longest blocks need."""
LONGEST_S = 4.0  # of a look: slow cameras have fewer frames in it, and with them shorter blocks
PERIOD_S = 1.0  # between the beginnings of two looks at least: fast cameras need not be followed all the time
LEAST_FRAMES = 2 * (FEWEST_STEPS + 1)  # of a look: two block lengths can be compared
KEPT = 40  # looks that D is from, the oldest are dropped
AXES, TIME = 3, 3


class LongLooks:
    """Follows some tracks over many frames; `renewed` are the sums of the newest looks."""

    def __init__(self, refraction_factor: float = 1.0, *, period_s: float = PERIOD_S) -> None:
        self._period_s = period_s
        self._followed = Followed(FOLLOWED, refraction_factor)
        self._seen: list[FloatArray] = []
        self._began_s = -math.inf
        self._done: deque[list[Moments]] = deque(maxlen=KEPT)
        self._fresh = False

    def warmup(self, tracks: Tracks) -> None:
        """Compile, or load what was compiled before, with a frame without tracks."""
        self._followed.see(tracks)

    def update(self, tracks: Tracks) -> None:
        """Add one frame's tracks; those that are not counted are left out."""
        info = tracks.info
        if not self._seen:
            if self._began_s + self._period_s > info.time_s >= self._began_s:
                return
            self._followed.begin(tracks)
        now, some_left = self._followed.see(tracks)
        if not len(now):
            return
        if not self._seen:
            self._began_s = info.time_s
        self._seen.append(now)
        late = info.time_s - self._began_s >= LONGEST_S and len(self._seen) >= LEAST_FRAMES
        if late or not some_left or len(self._seen) >= FRAMES or info.time_s < self._began_s:
            self._finish()

    def _finish(self) -> None:
        names = self._followed.names
        seen = np.full((names.size, len(self._seen), AXES + 1), np.nan)
        for frame, now in enumerate(self._seen):
            seen[: len(now), frame] = now
        self._seen = []
        axes = AXES if np.isfinite(seen[..., AXES - 1]).any() else AXES - 1
        # one row of a track at a time: a time that comes twice (a camera that stands still) says nothing new
        when = np.where(np.isnan(seen[..., TIME]), -math.inf, seen[..., TIME])
        latest = np.maximum.accumulate(when, axis=1)
        new = np.isfinite(when) & (when > np.pad(latest[:, :-1], ((0, 0), (1, 0)), constant_values=-math.inf))
        track, _ = np.nonzero(new)
        rows = seen[new]
        segments = cut_into_segments(names[track], rows[:, TIME], rows[:, :axes].T, longest=FRAMES)
        if segments.steps.size:
            self._done.append(block_moments(segments))
            self._fresh = True

    def renewed(self) -> list[Moments] | None:
        """The sums of each block length of the newest looks; None if there is no new look since the last call."""
        done = list(self._done)  # `update` may go on in another thread
        if not self._fresh:
            return None
        self._fresh = False
        axes = done[-1][0].found.shape[0]  # depths may have become known meanwhile
        return together([look for look in done if look[0].found.shape[0] == axes])
