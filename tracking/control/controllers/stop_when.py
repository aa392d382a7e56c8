"""Controller that ends the run once enough trajectories or frames have been measured."""

from __future__ import annotations

import numpy as np

from stream.messages import Command, CommandKind, Tracks
from tracking.control.settings import StopWhenSettings


class StopWhen:
    """Sends one stop command. The length of a trajectory is counted from its first to its last detection."""

    name = "stop_when"

    def __init__(self, settings: StopWhenSettings) -> None:
        self._settings = settings
        self._long_enough = np.zeros(1024, np.bool_)
        self._frames = 0
        self._asked = False

    @property
    def trajectories(self) -> int:
        """Number of trajectories that are long enough so far."""
        return int(np.count_nonzero(self._long_enough))

    def update(self, tracks: Tracks) -> list[Command]:
        """Count, and return the stop command when a limit is reached."""
        if self._asked:
            return []
        s = self._settings
        self._frames += 1
        counted = tracks.counted & (tracks.age_frames + 1 >= s.length_frames)
        if counted.any():
            self._mark(tracks.track[counted].astype(np.int64))
        enough = s.trajectories is not None and self.trajectories >= s.trajectories
        if enough or (s.frames is not None and self._frames >= s.frames):
            self._asked = True
            return [Command(CommandKind.STOP)]
        return []

    def _mark(self, numbers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        needed = int(numbers.max()) + 1
        if needed > self._long_enough.size:
            wide = np.zeros(max(needed, 2 * self._long_enough.size), np.bool_)
            wide[: self._long_enough.size] = self._long_enough
            self._long_enough = wide
        self._long_enough[numbers] = True
