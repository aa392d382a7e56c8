"""The tracker for particles in a flow, and the plain one: links, filter, and what is learnt of all particles."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import gammainccinv

from stream.messages import Detections, FrameInfo, Predictions, Tracks
from tracking import kalman, track_life
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
from tracking.predictions import predictions_of
from tracking.process_noise import StepNoise
from tracking.second_detections.close_pairs import Motion, velocity_spread
from tracking.second_detections.finder import SecondDetectionFinder
from tracking.settings import TrackerSettings
from tracking.sides.chooser import SideChooser
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


class FlowTracker:
    """Links the detections of successive frames, with a filter or (`mode = "hungarian"`) without.

    `OnlineTracker` decides what it is given, and advances the `clock`; `counts` are the run's, added to here.
    """

    def __init__(self, settings: TrackerSettings, clock: FrameClock, counts: dict[str, int]) -> None:
        self.settings = settings
        self.counts = counts
        self.alive = 0
        self.second_detections = 0
        self._is_flow = settings.mode == "flow"
        self._confirm = settings.confirm_hits if self._is_flow else settings.min_length_frames
        self._max_gap = settings.max_gap_frames if self._is_flow else 0
        self._sigma: FloatArray = np.array([settings.sigma_xy_um, settings.sigma_xy_um, settings.sigma_z_um])
        self._memory = TrackMemory()
        self._clock = clock
        self._noise = StepNoise(settings.diffusion_um2_s)
        self._flow = FlowField(3)
        self._finder = _finder(settings)
        self._displacements = DisplacementWatch(is_flow=self._is_flow)
        self._sides = SideChooser(settings.side_memory_frames)
        self._spread: FloatArray = np.zeros((1, 2))
        self._time_s = 0.0
        self._last: Tracks | None = None
        self._last_clock = 0
        self._changes = ChangeFollower()
        self._axes = 0
        self._gate = 0.0
        self._focus_um = 0.0
        self._births = 0.0
        self._low: FloatArray = np.full(3, np.inf)
        self._high: FloatArray = np.full(3, -np.inf)
        self._extent_um: FloatArray = np.zeros(3)
        self._mean_variance: FloatArray = np.zeros(3)
        self._unknown: FloatArray = np.zeros(3)

    @property
    def changes(self) -> int:
        """How often the flow has changed as a whole."""
        return self._changes.changes

    @property
    def diffusion_um2_s(self) -> float:
        """The in-plane diffusion coefficient that the filter works with; NaN before it has one."""
        return float(self._noise.rate[:2].mean() / 2.0) if self._noise.ready else math.nan

    @property
    def remark(self) -> str:
        """One line once particles are seen to move farther between frames than links can resolve; else ""."""
        return self._displacements.remark

    def begin(self, axes: int) -> None:
        """Track in 3D or in 2D from now on."""
        self._axes = axes
        # The upper quantile of chi-square with k degrees of freedom.
        self._gate = 2.0 * float(gammainccinv(axes / 2.0, self.settings.gate_tail))
        self._flow = FlowField(axes)
        self._spread = np.zeros((int(self._flow.shape[0] * self._flow.shape[1]), 2))
        self._low[axes:] = self._high[axes:] = 0.0

    def step(self, detections: Detections, focus_um: float) -> Tracks:
        """Link one frame; returns a row for each live track, in order of track number."""
        self._focus_um = focus_um
        self._drop_stale()
        count = self._take(detections)
        born = self.counts["born"]
        if self._is_flow and self.alive:
            self._predict()
        self._link(count)
        if self._is_flow and self.alive and self._clock.dt_s > 0:
            self._changes.follow(self._scene(count), self._flow, self._sides, lambda: self._link(count))
        tracks = self._update(detections.info, count)
        if self._sides.revised:
            self.counts["revised"] = self._sides.revised
        if self._is_flow and self.alive and self._clock.dt_s > 0:
            self._learn(count)
        if self._finder is not None:
            self._mark_second_detections(tracks, self._finder)
        self._watch(tracks, count, self.counts["born"] - born)
        self._last, self._last_clock = tracks, self._clock.elapsed
        return tracks

    def finish(self) -> None:
        """End all tracks; what is learnt stays."""
        self.alive = 0

    def follow_any_change(self) -> None:
        """Compile for a live run what follows a change of the whole flow."""
        compile_for(self._scene(self.alive)._replace(dt_s=1.0, reach_um=np.ones(3)))

    def _scene(self, count: int) -> Scene:
        """This frame with its `count` detections."""
        reach = np.maximum(self._reach_um(count), [0.0, 0.0, self._extent_um[2]])
        where = (self._memory, self.alive, count, self._axes, self._clock.dt_s, self._last_clock)
        return Scene(*where, self._confirm, self._gate, reach)

    def _watch(self, tracks: Tracks, count: int, born: int) -> None:
        """Look whether links are resolved; `counts["unresolved"]` are the frames in which they are not."""
        noise, frame_s = self._noise, self._usual_s
        step_um = math.sqrt(float(noise.rate[:2].mean()) * frame_s) if noise.ready else math.nan
        self._displacements.look(tracks, self._spacing_um(count), step_um, frame_s, born)
        if self._displacements.unresolved:
            self.counts["unresolved"] = self._displacements.unresolved

    @property
    def _gap(self) -> int:
        """Longest gap, camera frames: `max_gap_frames` of those that are tracked, with the typical gaps between."""
        return (self._max_gap + 1) * self._clock.typical - 1

    def _drop_stale(self) -> None:
        m = self._memory
        left = int(track_life.drop_stale(m.state, m.label, self.alive, self._clock.elapsed, self._gap))
        self.counts["ended"] += self.alive - left
        self.alive = left

    def _take(self, detections: Detections) -> int:
        """Copy the usable detections into memory and widen the volume seen so far; returns their number."""
        m, rows = self._memory, len(detections)
        m.reserve(self.alive + rows, rows)
        m.measured.table[:, :rows] = detections.table
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
            noise.start(np.full(3, (FIRST_STEP_SPACINGS * self._spacing_um(self.alive)) ** 2 / self._usual_s))
        if not self._unknown.any():
            # These tracks were born before the time between frames was known.
            self._set_unknown(self.alive)
            m.state[kalman.VV : kalman.BRIGHTNESS, : self.alive] = self._unknown[:, None]
            self._sides.set_unknown(self._unknown)
        step, wander = noise.rate * dt, self._wander(dt)
        flow, share = tuple(self._flow.flow), self._wander_share(dt)
        kalman.predict(m.state, self.alive, self._axes, dt, step, wander, share, flow)
        self._sides.predict(m.label, self.alive, dt, noise.slow * dt, self._wander(dt, noise.slow))

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

    def predictions(self, info: FrameInfo) -> Predictions:
        """What is known of the tracks after the last step (`OnlineTracker.predictions`), whose frame `info` is."""
        last, m, frame_s = self._last, self._memory, self._clock.frame_s
        knows = self._is_flow and self._axes == 3 and self._noise.ready and frame_s > 0
        if last is None or not (knows and self.alive):
            return Predictions.empty(info)
        noise = (self._noise.rate, self._wander(frame_s), frame_s)
        flow = tuple(self._flow.flow)
        fewest = self._confirm if self._noise.is_new else min(PREDICTED_HITS, self._confirm)
        return Predictions(
            info, predictions_of(m.state, m.label, last.table, self._clock.elapsed, noise, flow, fewest)
        )

    def _link(self, count: int) -> None:
        m, axes = self._memory, self._axes
        c, z, R, alive = m.candidates, m.measured.z, m.measured.R, self.alive
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
        rows = np.empty((track_life.COLUMNS, self.alive + count))
        rows[track_life.MORE] = np.nan
        links = m.assignment.memory.column_of
        self._sides.resolve(m.state, self.alive, links, m.measured, self._unknown, info.frame, self._focus_um)
        track_life.advance(
            (m.state, m.label, self.alive, self.counts["born"]),
            links,
            tuple(m.measured),
            count,
            (self._axes, self._confirm, self._gap, self._is_flow, self._judging),
            (info.frame, clock.elapsed, self._focus_um, clock.dt_s),
            tuple(self._flow.flow),
            self._unknown,
            (rows, m.tally, m.judged, m.settled, m.taken),
        )
        linked, missed, born, ended, self.alive = (int(n) for n in m.tally[: track_life.JUDGED])
        for name, number in (("linked", linked), ("missed", missed), ("born", born), ("ended", ended)):
            self.counts[name] += number
        self._births += (born - self._births) * (BIRTH_MEMORY if self._births else 1.0)
        self._sides.write(
            rows, m.state, m.label, self.alive, m.measured, self._unknown, info.frame, self._focus_um
        )
        return Tracks(info, np.ascontiguousarray(rows[:, : self.alive]))

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
        m, n, frame_s = self._memory, self.alive, self._clock.frame_s
        low = (SMALLEST_STEP_SIGMAS**2 * self._mean_variance + 1e-12) / frame_s
        high = np.maximum(low, self._spacing_um(count) ** 2 / frame_s)
        before = self._noise.rate
        self._noise.learn(m.judged, int(m.tally[track_life.JUDGED]), low, high)
        if self._noise.rate is not before:
            kalman.change_noise(m.state, n, self._axes, self._noise.rate - before)
        x, v = m.state[kalman.POSITION : kalman.VELOCITY], m.state[kalman.VELOCITY : kalman.PP]
        self._flow.learn(x, v, m.settled[:n], m.state[kalman.VV : kalman.BRIGHTNESS])
        self._sides.learn(m.state, m.settled[:n], self._low, self._high)


def _finder(settings: TrackerSettings) -> SecondDetectionFinder | None:
    rule = settings.double_test
    if rule == "auto":
        rule = "likelihood" if settings.mode == "flow" else "paper"
    if rule == "off":
        return None
    return SecondDetectionFinder(rule, settings.double_distance_um, settings.double_displacement_um)
