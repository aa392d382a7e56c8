"""Controller that holds the particles, or the wall, at a depth by moving the focus."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from stream.messages import Command, CommandKind, CommandReply, Tracks
from tracking.control.controllers.age_limit import AgeLimit, age_limit_s
from tracking.control.controllers.controller_interface import Happening
from tracking.control.controllers.loop_delay import LoopDelay
from tracking.control.controllers.measuring import FloatArray, clipped_mean
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
"""Time over which the drift is fitted, s. Shorter, its noise enters every move (times the time that the move looks
ahead); longer, a change of the drift is followed late."""
YOUNG_FRAMES, SETTLED_FRAMES = 5, 30
"""Detections after which a track's home counts, and over how many it is averaged. Fewer let errors add up faster
from one generation of particles to the next; more leave out particles that cross the field quickly. It is their
number that counts, not the time: the noise of a mean falls with it, also where few frames are tracked."""
UNKNOWN_UM = 1.0
"""Standard error of a depth that states none, um; as all others do, it only weighs it."""
FEWEST_FOR_A_WALL = 30
"""Depths and velocities, of all samples together, that a fit of the wall needs. The fit itself refuses data that do
not show a parabola; this only spares it hopeless ones."""


class HoldFocus:
    """Measures the common shift of all particles in depth and moves the focus to cancel it.

    Every track has a home: its depth minus the common shift S(t), averaged over its first `SETTLED_FRAMES`
    detections. S is the mean distance of the tracks from their homes. Individual heights cancel, so S is known to
    a fraction of a micrometre at once, but its errors add up with every generation of particles. `median` and
    `wall` correct that slowly: the median depth, or the depth at which the velocity profile falls to zero, is
    averaged over `reference_time_s` in coordinates that move with S.

    A move corrects the deviation that there will be when it shows: the present one and the drift (of the last
    `DRIFT_S`, S without the drive's own moves) times age of the result and time until a move shows (`LoopDelay`).
    It goes as far beyond as the drift will bring back until the next move, but not beyond the middle of that way
    or `tolerance_um`. The next move waits until the frames show this one, so that no move is repeated however old
    the results are. Beyond `max_age_s` it measures but does not move.
    """

    name = "hold_focus"

    def __init__(self, settings: HoldFocusSettings, watchdog_s: float = math.inf) -> None:
        """`watchdog_s` is `limits.watchdog_s`; raises `ConfigurationError` if `max_age_s` is not below it."""
        self._settings = settings
        setting = f"controller.{self.name}.max_age_s"
        self._limit = AgeLimit(self.name, age_limit_s(settings.max_age_s, watchdog_s, setting), setting)
        self._delay = LoopDelay()
        self.restart()

    def restart(self) -> None:
        """Begin again with the set-point of the settings, because a protocol has moved the focus."""
        wanted_um = self._settings.set_point_um
        self.set_point_um = math.nan if wanted_um is None else wanted_um
        self._shift_um = 0.0
        self._known = np.empty(0)
        self._home_um = self._seen = self._home_weight = np.empty(0)
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
            "dead_time_s": self._delay.dead_s,
        }

    def happenings(self) -> list[Happening]:
        """Whether it has stopped moving because of the results' age, or moves again."""
        return self._limit.happenings()

    @property
    def depth_um(self) -> float:
        """Depth z of the reference, um; NaN before it is known."""
        return self._reference_um + self._shift_um

    def acknowledged(self, ack: CommandReply) -> None:
        """Note the first frame that shows the last move."""
        self._delay.acknowledged(ack)
        if ack.command_id == self._waiting:
            self._waiting = ""
            self._from_frame = ack.first_frame

    def update(self, tracks: Tracks) -> list[Command]:
        """Measure the shift, and return a move when one is due."""
        self._delay.see(tracks.info)
        is_late = self._limit.refuses(self._delay.age_s)
        seen = tracks.counted & np.isfinite(tracks.z_um)
        self._used = int(np.count_nonzero(seen))
        self._follow(tracks.track[seen], tracks.z_um[seen], tracks.sigma_z_um[seen])
        if self._used < self._settings.min_tracks:
            return []
        self._drift.append((tracks.info.time_s, self._shift_um + tracks.info.focus_um))
        while tracks.info.time_s - self._drift[0][0] > DRIFT_S:
            self._drift.popleft()
        velocity = tracks.vx_um_s if self._settings.axis == "x" else tracks.vy_um_s
        self._refer(tracks.z_um[seen], velocity[seen], tracks.info.time_s)
        return [] if is_late else self._move(tracks)

    def _follow(self, track: FloatArray, depth_um: FloatArray, sigma_um: FloatArray) -> None:
        _, now, before = np.intersect1d(track, self._known, assume_unique=True, return_indices=True)
        old = self._seen[before] >= YOUNG_FRAMES
        old = old if np.count_nonzero(old) >= self._settings.min_tracks else np.ones(len(now), np.bool_)
        weight = 1.0 / np.where(np.isfinite(sigma_um) & (sigma_um > 0), sigma_um, UNKNOWN_UM) ** 2
        if old.any():
            off_um = depth_um[now] - self._home_um[before]
            variance = 1.0 / weight[now] + 1.0 / self._home_weight[before]
            self._shift_um = clipped_mean(off_um[old], np.sqrt(variance[old]))
        home_um, seen, home_weight = depth_um - self._shift_um, np.ones(len(track)), weight.copy()
        count = self._seen[before] + 1
        seen[now] = count
        added = np.where(count <= SETTLED_FRAMES, weight[now], 0.0)
        home_weight[now] = self._home_weight[before] + added
        share = added / home_weight[now]
        home_um[now] = self._home_um[before] + share * (home_um[now] - self._home_um[before])
        self._known, self._home_um, self._seen, self._home_weight = track, home_um, seen, home_weight

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
        drift_um_s = self._drift_um_s()
        error_um = self.depth_um - self.set_point_um + drift_um_s * self._delay.dead_s
        from_um = info.focus_commanded_um if math.isfinite(info.focus_commanded_um) else info.focus_um
        waiting = self._waiting and info.time_s - self._sent_s < LONGEST_WAIT_S
        too_soon = info.time_s - self._sent_s < s.period_s or info.frame < self._from_frame
        if waiting or too_soon or not abs(error_um) > s.tolerance_um or not math.isfinite(from_um):
            return []
        step_um = error_um + self._ahead_um(drift_um_s)
        step_um = min(max(step_um, -s.max_step_um), s.max_step_um)
        command = Command(CommandKind.MOVE_FOCUS, from_um + step_um)
        self._delay.sent(command.command_id)
        self._waiting, self._sent_s = command.command_id, info.time_s
        return [command]

    def _ahead_um(self, drift_um_s: float) -> float:
        """How far a move goes beyond the set-point, um, so that the next deviation is not larger than this one."""
        until_next_s = max(self._settings.period_s, self._delay.dead_s + self._delay.interval_s)
        way_um = abs(drift_um_s) * until_next_s
        return math.copysign(min(way_um, max(self._settings.tolerance_um, way_um / 2)), drift_um_s)

    def _drift_um_s(self) -> float:
        """Speed at which the depths change apart from the drive's own moves, um/s."""
        time_s, depth_um = np.array(self._drift).T
        if time_s[-1] - time_s[0] < 0.5 * DRIFT_S or not np.isfinite(depth_um).all():
            return 0.0
        return float(np.polyfit(time_s - time_s[0], depth_um, 1)[0])
