"""The online tracker: one call for each frame links its detections to tracks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.special import gammainccinv

from stream.messages import Detections, FrameInfo, Predictions, Tracks
from stream.volume_info import VolumeInfo
from tracking import kalman, track_life
from tracking.as_detected import note_detected
from tracking.assignment import solve
from tracking.candidates import (
    OVERFLOW,
    gate_by_chi_square,
    gate_by_distance,
    index_points,
)
from tracking.change_following import ChangeFollower, Scene, compile_for
from tracking.displacements import DisplacementWatch
from tracking.flow_field import FlowField
from tracking.frame_clock import FrameClock
from tracking.kinds import TrackKinds
from tracking.predictions import predictions_of
from tracking.process_noise import StepNoise
from tracking.second_detections.close_pairs import Motion, velocity_spread
from tracking.second_detections.finder import SecondDetectionFinder
from tracking.settings import TrackerSettings
from tracking.sides.chooser import SideChooser
from tracking.switching.tracker import SwitchingTracker
from tracking.track_memory import TrackMemory

FloatArray = npt.NDArray[np.float64]

REACH_SIGMAS = 3.0
"""Standard deviations of an unknown velocity that make the largest displacement (`max_displacement_um`): 1 in 400
particles would be faster."""
REACH_SPACINGS = 2.0
"""Largest displacement of a particle of unknown velocity, in mean distances between neighbours, unless it is set.
Beyond it most candidates are other particles; smaller, fast flows are not found at all."""
FIRST_STEP_SPACINGS = 0.1
"""First guess of the random step, in mean distances between neighbours. It should be too large, since learning
narrows the gates within some tens of frames; too small a guess loses tracks until then."""
SMALLEST_STEP_SIGMAS = 0.02
"""Smallest random step that is learnt, in standard errors of a position. A smaller one cannot be told from none; it
keeps the filter from trusting its velocity without limit."""
SMALLEST_EXTENT_SIGMAS = 20.0
"""Smallest size of the volume seen, in standard errors of a position, so that densities and spacings stay finite
with one or two particles. With more particles it has no effect."""
BIRTH_MEMORY = 0.1
"""Weight of a frame in the mean number of births: ten frames. It enters the cost of a missed link by its
logarithm, so that a factor of two hardly matters."""
VELOCITY_TAILS = 3.0
"""The mean square error of velocities over what is stated: a few wrong links at the start have most of it. Less
takes particles at rest beside one another for one more often; more hides how much velocities differ in slow
flows."""
PREDICTED_HITS = 2  # detections from which a tentative track is predicted: two give a velocity


class OnlineTracker:
    """Links the detections of successive frames into tracks.

    The first frame with particles decides between 3D (at least half of them have a depth) and 2D, for the
    whole run. In 3D a detection without depth is ignored and counted, as is, in either case, one whose x or y
    is not finite or absurd (10 m). In 2D depths are not used and come out as NaN.

    A frame whose number is not greater than the last one's is ignored and counted as a repeated frame. Elapsed
    frames and times are `tracking.frame_clock`'s; a track ends when it was not detected for more than
    `max_gap_frames` camera frames, so a longer loss of frames ends all tracks. Where only every k-th frame is
    tracked lately, frames in between do not count. A tentative track ends at its first miss.

    Depths are tracked as height, focus + z, so that a focus move does not look like motion; a frame without
    focus reading counts as not moved. `counts` holds `born`, `ended`, `linked`, `missed` (predicted rows),
    `duplicates` (repeated frames; the key is stored in files) and `ignored` (detections), and, where there are
    any, the frames with displacements beyond what links can resolve (`unresolved`, see
    `tracking.displacements`).

    Where detections have a second depth, on the other side of focus, the motion of a track decides between the two
    (`tracking.sides`, mode flow), now and for earlier rows; `counts` then holds how often (`revised`). Rows have
    the class of particle that most of the track's detections say (`tracking.kinds`).

    Tracks that are second detections of another's particle are flagged as soon as that is clear, see
    `tracking.second_detections.finder`; `second_detections` of them were in the last frame.
    """

    def __init__(self, settings: TrackerSettings) -> None:
        self.settings = settings
        self.counts = dict.fromkeys(("born", "ended", "linked", "missed", "duplicates", "ignored"), 0)
        self._is_flow = settings.mode == "flow"
        self._confirm = settings.confirm_hits if self._is_flow else settings.min_length_frames
        self._max_gap = settings.max_gap_frames if self._is_flow else 0
        self._sigma: FloatArray = np.array([settings.sigma_xy_um, settings.sigma_xy_um, settings.sigma_z_um])
        self._memory = TrackMemory()
        self._clock = FrameClock(settings.frame_rate_hz)
        self._noise = StepNoise(settings.diffusion_um2_s)
        self._flow = FlowField(3)
        self._finder = _finder(settings)
        self._displacements = DisplacementWatch(is_flow=self._is_flow)
        self._sides = SideChooser(settings.side_memory_frames)
        self._kinds = TrackKinds()
        self._spread: FloatArray = np.zeros((1, 2))
        self._time_s = 0.0
        self.second_detections = 0
        self._last: Tracks | None = None
        self._last_clock = 0
        self._changes = ChangeFollower()
        self._switches: bool | None = None
        self._switching: SwitchingTracker | None = None
        self._axes = 0
        self._gate = 0.0
        self._alive = 0
        self._focus_um = 0.0
        self._births = 0.0
        self._low: FloatArray = np.full(3, np.inf)
        self._high: FloatArray = np.full(3, -np.inf)
        self._extent_um: FloatArray = np.zeros(3)
        self._mean_variance: FloatArray = np.zeros(3)
        self._unknown: FloatArray = np.zeros(3)

    @property
    def alive(self) -> int:
        """Tracks alive after the last step, tentative ones included."""
        return self._alive

    @property
    def axes(self) -> int:
        """3 or 2; 0 before the first particle."""
        return self._axes

    @property
    def changes(self) -> int:
        """How often the flow has changed as a whole."""
        return self._changes.changes

    @property
    def diffusion_um2_s(self) -> float:
        """The in-plane diffusion coefficient that the filter works with; NaN before it has one."""
        if self._switching is not None:
            return float(self._switching.learning.q[0, :2].mean() / 2.0)
        return float(self._noise.rate[:2].mean() / 2.0) if self._noise.ready else math.nan

    @property
    def remark(self) -> str:
        """One line once particles are seen to move farther between frames than links can resolve; else ""."""
        return self._displacements.remark

    def warmup(self) -> None:
        """Compile everything a live run needs (seconds at first, then from numba's cache).

        What volumes need is compiled only where the settings say that motion is switching: see `warmup_switching`.
        """
        if self.settings.motion == "switching":
            self.warmup_switching()
            return
        rng = np.random.default_rng(0)
        for mode in ("flow", "hungarian"):
            scratch = OnlineTracker(self.settings.model_copy(update={"mode": mode}))
            for frame in range(self.settings.confirm_hits + 3):
                info = FrameInfo("warmup", frame, frame, float(frame), 0, 0.0)
                x, y, z = rng.uniform(0.0, 100.0, (3, 40))
                sides = {"z_other_um": -z, "p_other": 0.1, "kind": 0.0, "p_kind": 0.9} if frame else {}
                scratch.step(Detections.from_columns(info, x_um=x, y_um=y, z_um=z, **sides))
            scratch.predictions()
            if mode == "flow":
                scratch.follow_any_change()

    def warmup_switching(self) -> None:
        """The same for particles that switch between Brownian and directed motion, as in volumes."""
        rng = np.random.default_rng(0)
        changes = {"mode": "flow", "motion": "switching"}
        scratch = OnlineTracker(self.settings.model_copy(update=changes))
        volume = VolumeInfo((0.0, 1.0, 2.0), (0.0, 0.1, 0.2), (1,))
        places = rng.uniform(0.0, 10.0, (3, 60))
        for frame in range(20):  # a crowd, in which links are decided anew
            info = FrameInfo("warmup", frame, frame, float(frame), 0, 0.0, volume=volume)
            x, y, z = places = places + rng.normal(0.0, 1.0, (3, 60))
            scratch.step(Detections.from_columns(info, x_um=x, y_um=y, z_um=z, kind=0.0, p_kind=0.9))
        scratch.predictions()

    def step(self, detections: Detections) -> Tracks:
        """Link one frame; returns a row for each live track, in order of track number.

        A repeated or earlier frame gives an empty table and changes nothing.
        """
        info = detections.info
        if not self._clock.advance(info):
            self.counts["duplicates"] += 1
            return Tracks.empty(info)
        if abs(info.focus_um) < kalman.FARTHEST_UM:
            self._focus_um = float(info.focus_um)
        if self._is_switching(detections):
            return self._step_switching(detections)
        self._drop_stale()
        count = self._take(detections)
        born = self.counts["born"]
        if self._is_flow and self._alive:
            self._predict()
        self._link(count)
        if self._is_flow and self._alive and self._clock.dt_s > 0:
            self._changes.follow(self._scene(count), self._flow, self._sides, lambda: self._link(count))
        tracks = self._update(info, count)
        self._kinds.write(tracks.table, detections.table)
        note_detected(tracks.table, detections.table)
        if self._sides.revised:
            self.counts["revised"] = self._sides.revised
        if self._is_flow and self._alive and self._clock.dt_s > 0:
            self._learn(count)
        if self._finder is not None:
            self._mark_second_detections(tracks, self._finder)
        self._watch(tracks, count, self.counts["born"] - born)
        self._last, self._last_clock = tracks, self._clock.elapsed
        return tracks

    def _is_switching(self, detections: Detections) -> bool:
        """Whether particles switch between two kinds of motion; the first frame with a place decides."""
        if self._switches is None:
            placed, axes = _placed(detections)
            is_volume = detections.info.volume is not None
            if not is_volume and not axes:
                return False
            is_volume |= bool(np.isfinite(detections.time_offset_s[placed]).any())
            wanted = self.settings.motion
            self._switches = self._is_flow and (wanted == "switching" or (wanted == "auto" and is_volume))
        return self._switches

    def _step_switching(self, detections: Detections) -> Tracks:
        """The same for particles that switch between Brownian and directed motion (`tracking.switching`)."""
        info = detections.info
        if self._axes == 0:
            self._decide_axes(detections)
            if self._axes == 0:
                self.counts["ignored"] += len(detections)
                return Tracks.empty(info)
        if self._switching is None:
            self._switching = SwitchingTracker(self.settings, self._axes)
        tracks, tally, ignored = self._switching.step(
            detections, self._clock, self._focus_um, self.counts["born"]
        )
        self._alive = self._switching.alive
        for at, name in (
            (track_life.LINKED, "linked"), (track_life.MISSED, "missed"), (track_life.BORN, "born"),
            (track_life.ENDED, "ended"),
        ):  # fmt: skip
            self.counts[name] += int(tally[at])
        self.counts["ignored"] += ignored
        if self._switching.relinked:
            self.counts["relinked"] = self._switching.relinked
        self._kinds.write(tracks.table, detections.table)
        note_detected(tracks.table, detections.table)
        self._last, self._last_clock = tracks, self._clock.elapsed
        return tracks

    def follow_any_change(self) -> None:
        """Compile for a live run what follows a change of the whole flow."""
        compile_for(self._scene(self._alive)._replace(dt_s=1.0, reach_um=np.ones(3)))

    def _scene(self, count: int) -> Scene:
        """This frame with its `count` detections."""
        reach = np.maximum(self._reach_um(count), [0.0, 0.0, self._extent_um[2]])
        where = (self._memory, self._alive, count, self._axes, self._clock.dt_s, self._last_clock)
        return Scene(*where, self._confirm, self._gate, reach)

    def _watch(self, tracks: Tracks, count: int, born: int) -> None:
        """Look whether links are resolved; `counts["unresolved"]` are the frames in which they are not."""
        noise, frame_s = self._noise, self._usual_s
        step_um = math.sqrt(float(noise.rate[:2].mean()) * frame_s) if noise.ready else math.nan
        self._displacements.look(tracks, self._spacing_um(count), step_um, frame_s, born)
        if self._displacements.unresolved:
            self.counts["unresolved"] = self._displacements.unresolved

    def finish(self) -> None:
        """End all live tracks and count them."""
        self.counts["ended"] += self._alive
        self._alive = 0
        if self._switching is not None:
            self._switching.finish()

    @property
    def _gap(self) -> int:
        """Longest gap, camera frames: `max_gap_frames` of those that are tracked, with the typical gaps between."""
        return (self._max_gap + 1) * self._clock.typical - 1

    def _drop_stale(self) -> None:
        m = self._memory
        left = int(track_life.drop_stale(m.state, m.label, self._alive, self._clock.elapsed, self._gap))
        self.counts["ended"] += self._alive - left
        self._alive = left

    def _take(self, detections: Detections) -> int:
        """Copy the usable detections into memory and widen the volume seen so far; returns their number."""
        m, rows = self._memory, len(detections)
        m.reserve(self._alive + rows, rows)
        m.measured.table[:, :rows] = detections.table
        if self._axes == 0:
            self._decide_axes(detections)
        axes = self._axes
        count = kalman.take_detections(tuple(m.measured), rows, axes, self._focus_um, self._sigma, m.widest)
        self.counts["ignored"] += rows - count
        if self._is_flow:
            self._sides.take(m.measured, rows, count, self._focus_um, axes)
        if count:
            points = m.measured.z[:axes, :count]
            np.minimum(self._low[:axes], points.min(axis=1), out=self._low[:axes])
            np.maximum(self._high[:axes], points.max(axis=1), out=self._high[:axes])
            self._mean_variance[:axes] = m.measured.R[:axes, :count].mean(axis=1)
            if self._is_flow:
                self._flow.cover(self._low, self._high)
        self._measure_extent()
        return int(count)

    def _decide_axes(self, detections: Detections) -> None:
        _, axes = _placed(detections)
        if not axes:
            return
        self._axes = axes
        # The upper quantile of chi-square with k degrees of freedom.
        self._gate = 2.0 * float(gammainccinv(self._axes / 2.0, self.settings.gate_tail))
        self._flow = FlowField(self._axes)
        self._spread = np.zeros((int(self._flow.shape[0] * self._flow.shape[1]), 2))
        self._low[self._axes :] = self._high[self._axes :] = 0.0

    def _measure_extent(self) -> None:
        """Set the size (3,) of the volume seen so far, never less than some standard errors."""
        seen = np.where(np.isfinite(self._low), self._high - self._low, 0.0)
        self._extent_um = np.maximum(seen, SMALLEST_EXTENT_SIGMAS * self._sigma)

    def _spacing_um(self, count: int) -> float:
        """Mean in-plane distance between neighbours, from the field of view and the particles in it."""
        width, height, _ = self._extent_um
        return math.sqrt(width * height / max(count, 1))

    def _reach_um(self, count: int) -> float:
        """How far a particle of unknown velocity may move in a frame."""
        return self.settings.max_displacement_um or REACH_SPACINGS * self._spacing_um(count)

    def _set_unknown(self, count: int) -> None:
        """Velocity variance of a particle of which nothing is known."""
        step_s = self._clock.frame_s if self.settings.max_displacement_um else self._usual_s
        self._unknown[:] = (self._reach_um(count) / REACH_SIGMAS / step_s) ** 2

    @property
    def _usual_s(self) -> float:
        """Time between two tracked frames lately, s."""
        return self._clock.frame_s * self._clock.typical

    def _predict(self) -> None:
        m, noise, dt = self._memory, self._noise, self._clock.dt_s
        if not noise.ready:
            noise.start(
                np.full(3, (FIRST_STEP_SPACINGS * self._spacing_um(self._alive)) ** 2 / self._usual_s)
            )
        if not self._unknown.any():
            # These tracks were born before the time between frames was known.
            self._set_unknown(self._alive)
            m.state[kalman.VV : kalman.BRIGHTNESS, : self._alive] = self._unknown[:, None]
            self._sides.set_unknown(self._unknown)
        step, wander = noise.rate * dt, self._wander(dt)
        flow, share = tuple(self._flow.flow), self._wander_share(dt)
        kalman.predict(m.state, self._alive, self._axes, dt, step, wander, share, flow)
        self._sides.predict(m.label, self._alive, dt, noise.slow * dt, self._wander(dt, noise.slow))

    def _wander(self, dt: float, rate: FloatArray | None = None) -> FloatArray:
        """Variance (3,), um^2/s^2, of the change of a velocity in `dt`, s, with this rate of the random steps."""
        rate = self._noise.rate if rate is None else rate
        frame_s, forget = self._clock.frame_s, 1.0 / self.settings.velocity_memory_frames
        steady = forget**4 * self._mean_variance * dt / frame_s**3
        change: FloatArray = rate * self._wander_share(dt) + steady
        return change

    def _wander_share(self, dt: float) -> float:
        """The part of `_wander` that is proportional to the variance of the random steps per second, 1/s."""
        return dt / (self.settings.velocity_memory_frames * self._clock.frame_s) ** 2

    def predictions(self) -> Predictions:
        """What is known of the tracks after the last step; empty in 2D, without filter, and for switching motion.

        Tentative tracks, flagged so, are among them from their second detection on, once the noise is learnt.
        A track that is a second detection of another's particle is flagged so. Changes nothing. Raises `ValueError`
        before the first step.
        """
        last, m, frame_s = self._last, self._memory, self._clock.frame_s
        if last is None:
            raise ValueError("there are no predictions before the first frame; call `step` first")
        info = replace(last.info, focus_um=self._focus_um)
        knows = (
            self._switching is None
            and self._is_flow
            and self._axes == 3
            and self._noise.ready
            and frame_s > 0
        )
        if not (knows and self._alive):
            return Predictions.empty(info)
        noise = (self._noise.rate, self._wander(frame_s), frame_s)
        flow = tuple(self._flow.flow)
        fewest = self._confirm if self._noise.is_new else min(PREDICTED_HITS, self._confirm)
        return Predictions(
            info, predictions_of(m.state, m.label, last.table, self._clock.elapsed, noise, flow, fewest)
        )

    def _link(self, count: int) -> None:
        m, axes = self._memory, self._axes
        c, z, R, alive = m.candidates, m.measured.z, m.measured.R, self._alive
        index_points(z[:axes], R, count, tuple(c.grid))
        limit = self.settings.max_distance_um**2
        no_link_cost = self._no_link_cost() if self._is_flow else math.nextafter(limit, math.inf)
        x, P = m.state[kalman.POSITION : kalman.VELOCITY], m.state[kalman.PP : kalman.PV]
        predictions = (x, P, m.label[kalman.HITS])
        # A detection of absurdly large error must not make every track look at the whole frame.
        widest = np.minimum(m.widest, self._reach_um(count) ** 2)
        gate = (self._gate, no_link_cost, self._confirm, widest)
        second = self._sides.gates(alive)
        found = OVERFLOW
        while found == OVERFLOW:
            grid, rows = tuple(c.grid), tuple(c.found)
            if self._is_flow:
                found = gate_by_chi_square(predictions, alive, gate, count, grid, rows, axes, second)
            else:
                found = gate_by_distance(x, alive, limit, grid, rows, axes)
            if found == OVERFLOW:
                c.grow_candidates()
        solve((*c.found, no_link_cost, alive, count), tuple(m.assignment.memory))

    def _no_link_cost(self) -> float:
        """Cost of a miss in the units of d^2 + ln|S|: -2 ln of (1 - p) density (2 pi)^(axes / 2) / p.

        p is the detection probability and density that of new particles, false ones included.
        """
        density = (self._births + 0.5) / float(self._extent_um[: self._axes].prod())
        hit = self.settings.detection_probability
        odds = math.log((1.0 - hit) / hit) + math.log(density)
        return -2.0 * odds - self._axes * math.log(2.0 * math.pi)

    def _update(self, info: FrameInfo, count: int) -> Tracks:
        m, clock = self._memory, self._clock
        if count and clock.frame_s > 0:
            self._set_unknown(count)
        rows = np.empty((track_life.COLUMNS, self._alive + count))
        rows[track_life.MORE] = np.nan
        links = m.assignment.memory.column_of
        self._sides.resolve(
            m.state, self._alive, links, m.measured, self._unknown, info.frame, self._focus_um
        )
        track_life.advance(
            (m.state, m.label, self._alive, self.counts["born"]),
            links,
            tuple(m.measured),
            count,
            (self._axes, self._confirm, self._gap, self._is_flow, self._judging),
            (info.frame, clock.elapsed, self._focus_um, clock.dt_s),
            tuple(self._flow.flow),
            self._unknown,
            (rows, m.tally, m.judged, m.settled, m.taken),
        )
        linked, missed, born, ended, self._alive = (int(n) for n in m.tally[: track_life.JUDGED])
        for name, number in (("linked", linked), ("missed", missed), ("born", born), ("ended", ended)):
            self.counts[name] += number
        self._births += (born - self._births) * (BIRTH_MEMORY if self._births else 1.0)
        self._sides.write(
            rows, m.state, m.label, self._alive, m.measured, self._unknown, info.frame, self._focus_um
        )
        return Tracks(info, np.ascontiguousarray(rows[:, : self._alive]))

    @property
    def _judging(self) -> int:
        """Detections that a track has before its next one judges the noise; from two its velocity is known."""
        return 2 if self._noise.is_new else max(self._confirm, 2)

    def _mark_second_detections(self, tracks: Tracks, finder: SecondDetectionFinder) -> None:
        flow, clock = self._flow, self._clock
        self._time_s += clock.dt_s
        if self._is_flow and flow.samples:
            velocity_spread(tuple(flow.flow), VELOCITY_TAILS * flow.errors, self._spread)
        q = self._noise.trusted
        motion = Motion(self._time_s, clock.frame_s, q, self._spread, flow.box, flow.shape)
        self.second_detections = finder.mark(tracks.table, tracks.info.frame, motion)

    def _learn(self, count: int) -> None:
        m, n, frame_s = self._memory, self._alive, self._clock.frame_s
        low = (SMALLEST_STEP_SIGMAS**2 * self._mean_variance + 1e-12) / frame_s
        high = np.maximum(low, self._spacing_um(count) ** 2 / frame_s)
        before = self._noise.rate
        self._noise.learn(m.judged, int(m.tally[track_life.JUDGED]), low, high)
        if self._noise.rate is not before:
            kalman.change_noise(m.state, n, self._axes, self._noise.rate - before)
        x, v = m.state[kalman.POSITION : kalman.VELOCITY], m.state[kalman.VELOCITY : kalman.PP]
        self._flow.learn(x, v, m.settled[:n], m.state[kalman.VV : kalman.BRIGHTNESS])
        self._sides.learn(m.state, m.settled[:n], self._low, self._high)


def _placed(detections: Detections) -> tuple[npt.NDArray[np.bool_], int]:
    """Which detections of a first frame have a place, and whether in 3D or in 2D; 0: none has one."""
    usable: npt.NDArray[np.bool_] = np.asarray(
        (np.abs(detections.table[:2]) < kalman.FARTHEST_UM).all(axis=0)
    )
    if not usable.any():
        return usable, 0
    with_depth = np.abs(detections.z_um) < kalman.FARTHEST_UM
    return (usable & with_depth, 3) if with_depth[usable].mean() >= 0.5 else (usable, 2)


def _finder(settings: TrackerSettings) -> SecondDetectionFinder | None:
    rule = settings.double_test
    if rule == "auto":
        rule = "likelihood" if settings.mode == "flow" else "paper"
    if rule == "off":
        return None
    return SecondDetectionFinder(rule, settings.double_distance_um, settings.double_displacement_um)
