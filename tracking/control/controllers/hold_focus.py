"""Hold the particles, or the wall, at a depth by moving the focus."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from stream.messages import Command, CommandKind, CommandReply, Tracks
from tracking.control.controllers.measuring import FloatArray, clipped_mean, measured
from tracking.control.controllers.wall import wall_um
from tracking.control.settings import HoldFocusSettings

SAMPLE_S = 0.25
LONGEST_WAIT_S = 10.0
BEGIN_S = 5.0
DRIFT_S = 5.0
LEAD_S = 0.5
YOUNG_FRAMES, SETTLED_FRAMES = 5, 30
FEWEST_FOR_A_WALL = 30


class HoldFocus:
    """Follows the shift of all particles in depth, and moves the focus against it.

    Every track has a home, its depth without the shift S(t) of all, averaged over its first 30 frames; S is the
    mean distance of the tracks from their homes. Individual heights cancel, so it is known to a fraction of a
    micrometre at once, but its errors add up with every generation of particles. `median` and `wall` correct
    that slowly: the median depth, or the depth at which the velocity profile comes to rest, is averaged over
    `reference_time_s` in coordinates that move with S. A move looks half a second ahead with the drift of the
    last five seconds (what S shows beyond the drive's own moves), and the next one waits until the frames show
    it.
    """

    name = "hold_focus"

    def __init__(self, settings: HoldFocusSettings) -> None:
        self._settings = settings
        self.restart()

    def restart(self) -> None:
        """Begin anew, with the set-point of the settings: the focus was moved elsewhere on purpose."""
        wanted_um = self._settings.set_point_um
        self.set_point_um = math.nan if wanted_um is None else wanted_um
        self._shift_um = 0.0
        self._known = np.empty(0)
        self._home_um = self._seen = np.empty(0)
        self._drift: deque[tuple[float, float]] = deque()
        self._samples: deque[tuple[float, FloatArray, FloatArray]] = deque()
        self._sampled_s = self._began_s = math.nan
        self._reference_um = math.nan
        self._sent_s = -math.inf
        self._waiting = ""
        self._from_frame = -1
        self._used = 0

    def retarget(self, set_point_um: float) -> None:
        """Hold another depth, from now on."""
        self.set_point_um = set_point_um

    def measured(self) -> dict[str, float]:
        """Depth of the reference now, where it should be, the shift since the start, and the tracks used."""
        return {
            "depth_um": self.depth_um,
            "set_point_um": self.set_point_um,
            "shift_um": self._shift_um,
            "tracks": float(self._used),
        }

    @property
    def depth_um(self) -> float:
        """Depth z of the reference, um; NaN before it is known."""
        return self._reference_um + self._shift_um

    def acknowledged(self, ack: CommandReply) -> None:
        """Hear from which frame on the last move shows."""
        if ack.command_id == self._waiting:
            self._waiting = ""
            self._from_frame = ack.first_frame

    def update(self, tracks: Tracks) -> list[Command]:
        """Measure the shift, and return a move when one is due."""
        seen = measured(tracks) & np.isfinite(tracks.z_um)
        self._used = int(np.count_nonzero(seen))
        self._follow(tracks.track[seen], tracks.z_um[seen], tracks.sigma_z_um[seen])
        if self._used < self._settings.min_tracks:
            return []
        self._drift.append((tracks.info.time_s, self._shift_um + tracks.info.focus_um))
        while tracks.info.time_s - self._drift[0][0] > DRIFT_S:
            self._drift.popleft()
        velocity = tracks.vx_um_s if self._settings.axis == "x" else tracks.vy_um_s
        self._refer(tracks.z_um[seen], velocity[seen], tracks.info.time_s)
        return self._move(tracks)

    def _follow(self, track: FloatArray, depth_um: FloatArray, sigma_um: FloatArray) -> None:
        _, now, before = np.intersect1d(track, self._known, assume_unique=True, return_indices=True)
        old = self._seen[before] >= YOUNG_FRAMES
        old = old if np.count_nonzero(old) >= self._settings.min_tracks else np.ones(len(now), np.bool_)
        if old.any():
            off_um = depth_um[now] - self._home_um[before]
            self._shift_um = clipped_mean(off_um[old], sigma_um[now][old])
        home_um, seen = depth_um - self._shift_um, np.ones(len(track))
        count = self._seen[before] + 1
        seen[now] = count
        share = np.where(count <= SETTLED_FRAMES, 1.0 / count, 0.0)
        home_um[now] = self._home_um[before] + share * (home_um[now] - self._home_um[before])
        self._known, self._home_um, self._seen = track, home_um, seen

    def _refer(self, depth_um: FloatArray, velocity_um_s: FloatArray, now_s: float) -> None:
        s = self._settings
        if math.isnan(self._began_s):
            self._began_s = now_s
        if s.reference == "tracks":
            if math.isnan(self._reference_um):
                self._reference_um = float(np.median(depth_um)) - self._shift_um
            return
        if not math.isnan(self._sampled_s) and now_s - self._sampled_s < SAMPLE_S:
            return
        self._sampled_s = now_s
        self._samples.append((now_s, depth_um - self._shift_um, velocity_um_s))
        while now_s - self._samples[0][0] > s.reference_time_s:
            self._samples.popleft()
        if s.reference == "median":
            self._reference_um = float(np.mean([np.median(depth) for _, depth, _ in self._samples]))
            return
        depth = np.concatenate([depth for _, depth, _ in self._samples])
        velocity = np.concatenate([velocity for _, _, velocity in self._samples])
        if len(depth) >= FEWEST_FOR_A_WALL:
            found_um = wall_um(depth, velocity, s.wall)
            self._reference_um = self._reference_um if math.isnan(found_um) else found_um

    def _move(self, tracks: Tracks) -> list[Command]:
        s, info = self._settings, tracks.info
        if math.isnan(self.set_point_um):
            settled = s.reference == "tracks" or info.time_s - self._began_s >= min(
                BEGIN_S, s.reference_time_s
            )
            if not settled or math.isnan(self.depth_um):
                return []
            self.set_point_um = self.depth_um
        error_um = self.depth_um - self.set_point_um
        from_um = info.focus_commanded_um if math.isfinite(info.focus_commanded_um) else info.focus_um
        waiting = self._waiting and info.time_s - self._sent_s < LONGEST_WAIT_S
        too_soon = info.time_s - self._sent_s < s.period_s or info.frame < self._from_frame
        if waiting or too_soon or not abs(error_um) > s.tolerance_um or not math.isfinite(from_um):
            return []
        step_um = error_um + LEAD_S * self._drift_um_s()
        step_um = min(max(step_um, -s.max_step_um), s.max_step_um)
        command = Command(CommandKind.MOVE_FOCUS, from_um + step_um)
        self._waiting, self._sent_s = command.command_id, info.time_s
        return [command]

    def _drift_um_s(self) -> float:
        """How fast the depths change by themselves, um/s."""
        time_s, depth_um = np.array(self._drift).T
        if time_s[-1] - time_s[0] < 0.5 * DRIFT_S or not np.isfinite(depth_um).all():
            return 0.0
        return float(np.polyfit(time_s - time_s[0], depth_um, 1)[0])
