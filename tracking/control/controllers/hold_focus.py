"""Controller that holds the particles, or the wall, at a depth by moving the focus."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from stream.messages import Command, CommandKind, CommandReply, Tracks
from tracking.control.controllers.measuring import FloatArray, clipped_mean, measured
from tracking.control.controllers.wall import wall_um
from tracking.control.settings import HoldFocusSettings

SAMPLE_S = 0.25
"""Time between two samples of all depths for the median or the wall, s. Particles stay in view for seconds, so that
denser samples hold the same particles and only cost time."""
LONGEST_WAIT_S = 10.0
"""How long to wait for the reply to a move before the next one, s: longer than any drive takes over its range, so
that a move is not repeated while the first one is under way; a lost reply stops control for this long."""
BEGIN_S = 5.0
"""Time over which the first set-point of median or wall is averaged, s (at most `reference_time_s`). The standard
error of the held depth falls with its square root."""
DRIFT_S = 5.0
"""Time over which the drift is fitted, s. Shorter, its noise enters every move (times `LEAD_S`); longer, a change
of the drift is followed late."""
LEAD_S = 0.5
"""How far ahead a move looks with the drift, s: about the time until the next move shows (`period_s` is 0.5 s by
default). 0 would leave a lag of drift times that time."""
YOUNG_FRAMES, SETTLED_FRAMES = 5, 30
"""Detections after which a track's home counts, and over how many it is averaged. Fewer let errors add up faster
from one generation of particles to the next; more leave out particles that cross the field quickly."""
FEWEST_FOR_A_WALL = 30
"""Depths and velocities, of all samples together, that a fit of the wall needs. The fit itself refuses data that do
not show a parabola; this only spares it hopeless ones."""


class HoldFocus:
    """Measures the common shift of all particles in depth and moves the focus to cancel it.

    Every track has a home: its depth minus the common shift S(t), averaged over its first `SETTLED_FRAMES`
    detections. S is the mean distance of the tracks from their homes. Individual heights cancel, so S is known to
    a fraction of a micrometre at once, but its errors add up with every generation of particles. `median` and
    `wall` correct that slowly: the median depth, or the depth at which the velocity profile falls to zero, is
    averaged over `reference_time_s` in coordinates that move with S. A move looks `LEAD_S` ahead with the drift of
    the last `DRIFT_S` (S without the drive's own moves); the next move waits until the frames show this one.
    """

    name = "hold_focus"

    def __init__(self, settings: HoldFocusSettings) -> None:
        self._settings = settings
        self.restart()

    def restart(self) -> None:
        """Begin again with the set-point of the settings, because a protocol has moved the focus."""
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
        """Change the depth to hold."""
        self.set_point_um = set_point_um

    def measured(self) -> dict[str, float]:
        """Present depth of the reference, set-point, shift since the start, and number of tracks used."""
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
        """Note the first frame that shows the last move."""
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
        """Speed at which the depths change apart from the drive's own moves, um/s."""
        time_s, depth_um = np.array(self._drift).T
        if time_s[-1] - time_s[0] < 0.5 * DRIFT_S or not np.isfinite(depth_um).all():
            return 0.0
        return float(np.polyfit(time_s - time_s[0], depth_um, 1)[0])
