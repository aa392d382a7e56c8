"""A controller that follows a sphere in depth with the focus, and ends the run once D is known.

[controller]
file = "holograms_depth_controller.py"
options = { at_um = 18.0, percent = 15 }

[limits]
min_focus_um = -25
max_focus_um = 5
"""

from __future__ import annotations

import numpy as np

from stream.messages import Command, CommandKind, CommandReply, TrackFlag, Tracks

NOT_SEEN = int(TrackFlag.PREDICTED | TrackFlag.SECOND_DETECTION)


class FollowInDepth:
    """Keeps a sphere `at_um` beyond the focal plane, within `tolerance_um`, and measures how all of them diffuse.

    D is the mean square of the displacements from frame to frame, along x and along y, without what the errors of
    the places add, over 2 dt. Of N displacements its relative standard error is sqrt(2 / N). At `percent` the run
    ends. Depths do not count: they are relative to a focus that moves.
    """

    def __init__(self, at_um: float = 18.0, tolerance_um: float = 1.0, percent: float = 15.0) -> None:
        self.at_um, self.tolerance_um, self.percent = at_um, tolerance_um, percent
        self.followed = -1
        self.moving, self.moved_frame = False, -1
        self.before: dict[int, tuple[float, np.ndarray, np.ndarray]] = {}
        self.diffusion: list[float] = []

    def update(self, tracks: Tracks) -> list[Command]:
        """Called with the tracks of every frame."""
        seen = np.flatnonzero((tracks.flags.astype(int) & NOT_SEEN) == 0)
        if not seen.size:
            return []
        self._measure(tracks, seen)
        if self.measured()["percent"] <= self.percent:
            return [Command(CommandKind.STOP, "the diffusion coefficient is known")]
        row = next((row for row in seen if tracks.track[row] == self.followed), None)
        if row is None:
            row = seen[np.argmax(tracks.age_frames[seen])]
            self.followed = int(tracks.track[row])
        off_um = float(tracks.z_um[row]) - self.at_um
        if self.moving or tracks.info.frame < self.moved_frame or abs(off_um) < self.tolerance_um:
            return []
        self.moving = True
        return [Command(CommandKind.MOVE_FOCUS, tracks.info.focus_um + off_um)]

    def acknowledged(self, ack: CommandReply) -> None:
        """Called with the reply to each command: the next move waits for the frames that show this one."""
        self.moving, self.moved_frame = False, max(self.moved_frame, ack.first_frame + 1)

    def _measure(self, tracks: Tracks, seen: np.ndarray) -> None:
        """Add what the steps since the last frame say of D."""
        now = {}
        for row in seen:
            place = np.array([tracks.x_um[row], tracks.y_um[row]])
            variance = np.array([tracks.sigma_x_um[row], tracks.sigma_y_um[row]]) ** 2
            now[int(tracks.track[row])] = (tracks.info.time_s, place, variance)
        for track, (time_s, place, variance) in now.items():
            if track in self.before:
                time_before_s, place_before, variance_before = self.before[track]
                square = (place - place_before) ** 2 - variance - variance_before
                self.diffusion += (square / (2 * (time_s - time_before_s))).tolist()
        self.before = now

    def measured(self) -> dict[str, float]:
        """What the control record says beside each command."""
        count = len(self.diffusion)
        if not count:
            return {"diffusion_um2_s": np.nan, "percent": np.inf, "displacements": 0}
        return {
            "diffusion_um2_s": float(np.mean(self.diffusion)),
            "percent": 100 * float(np.sqrt(2 / count)),
            "displacements": count,
        }
