"""Controller that fires the trigger when a particle is predicted to enter a region."""

from __future__ import annotations

import math

import numpy as np

from stream.messages import Command, CommandKind, Tracks
from stream.property_range import in_range, not_there
from tracking.control.controllers.controller_interface import Happening
from tracking.control.controllers.loop_delay import LoopDelay
from tracking.control.controllers.measuring import BoolArray, FloatArray, heights_um, of_kind
from tracking.control.settings import PulseOnEntrySettings

SMOOTHING = 0.2
"""Weight of a new position in the average along a track. The standard error falls to a third in the end
(sqrt(0.2 / 1.8)). A smaller weight averages longer, and lags where a particle does not move straight."""
REMEMBERED_FRAMES = 1000
"""Frames for which a track that had its pulse is remembered, once more than that many are. It must exceed the
frames that a particle takes from the prediction to the entry; it only bounds memory."""
SENDING_S = 0.005
"""Time from the tracks in hand to the command in the acquisition, s: 1.3 ms in the middle, 4.8 ms at most were
measured (docs/control.md). Less misses particles at the last moment; more only decides earlier."""
SPARE = 2.0
"""Intervals between results before the last possible moment at which a pulse is decided; results are irregular
under overload. More decides earlier, on an older position."""
IN_TIME_S = (
    5.0  # s without a late pulse after which pulses are said to be in time again; only decides what is said
)


class PulseOnEntry:
    """Extrapolates each track in a straight line and sends one trigger command for the time of its entry.

    Positions are averaged along the track: a measured one weighs `SMOOTHING`, the one predicted from the frame
    before the rest. With `kind`, only particles of this class get a pulse, with `property` only those in its range.
    The decision is taken `lead_s` before the entry, as late as the loop allows, or earlier where results are so
    old, or come so seldom, that it would be too late then; the command carries the time of the pulse, so that its
    own latency does not matter. A pulse that would still come more than `max_sigma_s` late is not fired: its
    particle has passed. It counts as `late`, which is said once, and once more when pulses are in time again.
    """

    name = "pulse_on_entry"

    def __init__(self, settings: PulseOnEntrySettings) -> None:
        s = self._settings = settings
        self._low = _edges(s.min_x_um, s.min_y_um, s.min_height_um, -math.inf)
        self._high = _edges(s.max_x_um, s.max_y_um, s.max_height_um, math.inf)
        self._track = np.empty(0)
        self._place_um = np.empty((3, 0))
        self._time_s = math.nan
        self._fired: dict[int, int] = {}
        self._delay = LoopDelay()
        self._late_s = math.nan
        self._notes: list[Happening] = []
        self.pulses = self.late = 0
        self._told = False

    def measured(self) -> dict[str, float]:
        """Number of pulses commanded so far, and of those that would have come too late."""
        return {"pulses": float(self.pulses), "late": float(self.late)}

    def happenings(self) -> list[Happening]:
        """Whether pulses come too late, or are in time again."""
        notes, self._notes = self._notes, []
        return notes

    def update(self, tracks: Tracks) -> list[Command]:
        """Return the trigger commands that are due."""
        s, info = self._settings, tracks.info
        seen = tracks.counted & (tracks.age_frames + 1 >= s.min_track_frames)
        seen &= of_kind(tracks, s.kind, s.min_p_kind) & in_range(tracks, s)
        self._tell_of_absence(not_there(tracks, s))
        track = tracks.track[seen]
        height = np.nan_to_num(heights_um(tracks)[seen])
        place = np.stack([tracks.x_um[seen], tracks.y_um[seen], height])
        velocity = np.nan_to_num(np.stack([tracks.vx_um_s, tracks.vy_um_s, tracks.vz_um_s])[:, seen])
        if s.min_height_um is None and s.max_height_um is None:
            velocity[2] = 0.0
        sigma = np.nan_to_num(np.stack([tracks.sigma_vx_um_s, tracks.sigma_vy_um_s, tracks.sigma_vz_um_s]))
        place = self._smoothed(track, place, velocity, info.time_s, tracks.revised[seen] > 0)
        entry_s, axis = entry_times_s(place, velocity, self._low, self._high)
        columns = np.arange(len(track))
        speed = np.maximum(np.abs(velocity[axis, columns]), 1e-12)
        error_s = np.where(np.isfinite(entry_s), entry_s, 0.0) * sigma[:, seen][axis, columns] / speed
        self._delay.see(info)
        last_s = self._delay.oldest_s + SENDING_S + SPARE * self._delay.interval_s - s.delay_s
        due = (entry_s > 0) & (entry_s <= max(s.lead_s, last_s)) & (error_s <= s.max_sigma_s)
        passed = entry_s + s.delay_s + s.max_sigma_s < self._delay.age_s + SENDING_S
        commands, late = [], 0
        for column in np.flatnonzero(due).tolist():
            number = int(track[column])
            if number in self._fired:
                continue
            self._fired[number] = info.frame
            if passed[column]:
                late += 1
                continue
            at_s = info.time_s + float(entry_s[column]) + s.delay_s
            commands.append(Command(CommandKind.TRIGGER, at_time_s=at_s))
        self.pulses += len(commands)
        self._count_late(late, info.time_s)
        self._forget(info.frame)
        return commands

    def _smoothed(
        self, track: FloatArray, place: FloatArray, velocity: FloatArray, now_s: float, revised: BoolArray
    ) -> FloatArray:
        """Average places; the average begins anew where a track has just changed to the other side of focus."""
        _, now, before = np.intersect1d(track, self._track, assume_unique=True, return_indices=True)
        same = ~revised[now]
        now, before = now[same], before[same]
        if len(now):
            moved = self._place_um[:, before] + velocity[:, now] * (now_s - self._time_s)
            place[:, now] = moved + SMOOTHING * (place[:, now] - moved)
        self._track, self._place_um, self._time_s = track, place, now_s
        return place

    def _tell_of_absence(self, text: str) -> None:
        """Say once that no particle can get a pulse, as the detector does not measure what they are chosen by."""
        if text and not self._told:
            self._told = True
            self._note(f"{self.name} gives no pulses: {text}")

    def _count_late(self, late: int, now_s: float) -> None:
        self.late += late
        was_late, age_s = not math.isnan(self._late_s), self._delay.age_s
        if late:
            self._late_s = now_s
        if late and not was_late:
            self._note(
                f"{self.name} is too late: a particle had entered when its result, {age_s:.2g} s old, came; "
                "it gets no pulse, and such particles are counted (late)"
            )
        if was_late and not late and now_s - self._late_s > IN_TIME_S:
            self._late_s = math.nan
            self._note(f"{self.name} is in time again; {self.late} particles got no pulse so far")

    def _note(self, text: str) -> None:
        self._notes.append(Happening("controller", text, {"late": self.late}))

    def _forget(self, frame: int) -> None:
        if len(self._fired) > REMEMBERED_FRAMES:
            self._fired = {n: f for n, f in self._fired.items() if frame - f < REMEMBERED_FRAMES}


def _edges(x: float | None, y: float | None, height: float | None, none: float) -> FloatArray:
    return np.array([none if edge is None else edge for edge in (x, y, height)])


def entry_times_s(
    place: FloatArray, velocity: FloatArray, low: FloatArray, high: FloatArray
) -> tuple[FloatArray, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """When points enter a box, and through the edge of which axis.

    `place` (3, N) um and `velocity` (3, N) um/s move in straight lines; the box extends from `low` (3,) to `high`
    (3,) um. Returns times (N,) in s from now, negative for points that are inside already and infinite for those
    that never enter, and axes (N,).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        to_low = (low[:, None] - place) / velocity
        to_high = (high[:, None] - place) / velocity
    still = velocity == 0
    between = (place >= low[:, None]) & (place <= high[:, None])
    enters = np.where(still, np.where(between, -np.inf, np.inf), np.fmin(to_low, to_high))
    leaves = np.where(still, np.where(between, np.inf, -np.inf), np.fmax(to_low, to_high))
    axis = enters.argmax(axis=0)
    entry = enters.max(axis=0)
    return np.where((entry < leaves.min(axis=0)) & (leaves.min(axis=0) > 0), entry, np.inf), axis
