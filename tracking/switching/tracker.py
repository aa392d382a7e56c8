"""The online tracker for particles that switch between Brownian and directed motion, in volumes and images."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree
from scipy.stats import chi2

from stream.messages import Detections, FrameInfo, Tracks
from tracking import kalman, track_life
from tracking.assignment import solve
from tracking.candidates import OVERFLOW, index_points
from tracking.flow_field import FlowField
from tracking.frame_clock import FrameClock
from tracking.settings import TrackerSettings
from tracking.switching import life, links, merging, motion
from tracking.switching.learning import Learning
from tracking.switching.second_look import UNLIKELY, Kept, Rules, SecondLook, places
from tracking.track_memory import PADDING, TrackMemory

FloatArray = npt.NDArray[np.float64]

FIRST_STEP_SPACINGS = 0.1  # first guess of the random step, in mean distances between neighbours
SLOW_PART = 0.25  # of the particles, from which the random step is first guessed
END_PART, END_MEMORY_FRAMES = 0.05, 40.0
"""Part of the particles by which an end of the stack is found, and frames after which they count 1/e."""
REACH_SPACINGS, REACH_SIGMAS = 2.0, 3.0  # of a particle of unknown velocity; see `tracking.flow_tracker`
SMALLEST_STEP_SIGMAS = 0.02  # smallest step that is learnt, in standard errors of a position
SMALLEST_EXTENT_SIGMAS = 20.0
BIRTH_MEMORY = 0.1
REAL = 0.7
"""Probability that a new track is a particle. It is one factor in the cost of its first link: 0.5 or 0.9 change
ln L by 0.3."""
SETTLED_MU = (
    0.7  # probability of directed motion from which a track's velocity is learnt as one of those here
)
NOTHING = np.zeros(0)
NONE_MISSING = np.zeros(0, np.bool_)
OFFSET = Detections.COLUMNS.index("time_offset_s")


class SwitchingTracker:
    """Links the detections of successive frames; the caller counts frames and writes what is common to all
    trackers.

    Rows of a volume are predicted, and filtered, to the time at which their own slice was imaged (`time_offset_s`).
    """

    def __init__(self, settings: TrackerSettings, axes: int, counts: dict[str, int]) -> None:
        self.settings = settings
        self.counts = counts
        self.alive = 0
        self._axes = axes
        self._sigma: FloatArray = np.array([settings.sigma_xy_um, settings.sigma_xy_um, settings.sigma_z_um])
        known = None if settings.diffusion_um2_s is None else 2.0 * settings.diffusion_um2_s
        self.learning = Learning(settings.detection_probability, known)
        self.flow = FlowField(axes)
        self.resolution = merging.Resolution()
        self._memory = TrackMemory()
        self._look = SecondLook()
        self._state: FloatArray = np.zeros((motion.STATES, 0))
        self._label: npt.NDArray[np.int64] = np.zeros((motion.LABELS, 0), np.int64)
        self._seen: FloatArray = np.zeros(0)
        self._costs: FloatArray = np.zeros(0)
        self._times: FloatArray = np.zeros(0)
        self._merged: tuple[npt.NDArray[np.int64], FloatArray, FloatArray, FloatArray] = (
            np.full(0, -1), np.zeros(0), np.zeros((3, 0)), np.zeros((3, 0)),
        )  # fmt: skip
        self._work: FloatArray = np.zeros((6, 3))
        self._unknown: FloatArray = np.zeros(3)
        self._now = 0.0
        self._has_times = False
        self._births = 0.0
        self._frames_seen = 0
        self._low: FloatArray = np.full(3, np.inf)
        self._high: FloatArray = np.full(3, -np.inf)
        self._extent_um: FloatArray = np.ones(3)
        self._ends: FloatArray = np.array([-np.inf, np.inf])
        self._found_ends: FloatArray = np.zeros(2)
        self._weight = 0.0
        self._mean_variance: FloatArray = np.zeros(3)

    @property
    def diffusion_um2_s(self) -> float:
        """The in-plane diffusion coefficient of Brownian motion that the filter works with."""
        return float(self.learning.q[0, :2].mean() / 2.0)

    def step(self, detections: Detections, clock: FrameClock, focus_um: float) -> Tracks:
        """Link one frame; returns a row for each live track, in order of track number."""
        info, born = detections.info, self.counts["born"]
        self._now += clock.dt_s
        slices = self._slices(info)
        count = self._take(detections, focus_um, slices)
        frame_s = clock.frame_s * clock.typical
        if count and frame_s > 0:
            reach = self.settings.max_displacement_um or REACH_SPACINGS * self._spacing_um(count)
            self._unknown[:] = (reach / REACH_SIGMAS / frame_s) ** 2
            # nothing moves farther in z than the stack is high
            self._unknown[2] = (min(reach, float(self._extent_um[2])) / REACH_SIGMAS / frame_s) ** 2
        moving = motion.Motion(
            self.learning.q,
            self.learning.rates,
            self._unknown,
            self.flow.errors,
            self._ends + focus_um,
            clock.frame_s,
        )
        if self.alive and clock.frame_s > 0:
            if not self.learning.ready:
                self._begin(frame_s, count)
                moving = moving._replace(q=self.learning.q)
            links.predict_all(
                self._state, self.alive, self._axes, self._now, focus_um, tuple(moving), tuple(self.flow.flow),
                tuple(self._chances()), slices, self._seen, self._work,
            )  # fmt: skip
        no_link = self._link(count)
        tried = self._tried(no_link)
        rows = self._update(info, clock, focus_um, count, moving, no_link, born)
        self._look.add(self._kept(info, clock, focus_um, slices, tried, count))
        if clock.frame_s > 0 and self.learning.ready:
            rows = self._look_again(rows, info, clock, focus_um, moving, born)
        tracks = Tracks(info, np.ascontiguousarray(rows[:, : self.alive]))
        if clock.frame_s > 0 and self.learning.ready:
            low = (SMALLEST_STEP_SIGMAS**2 * self._mean_variance + 1e-12) / clock.frame_s
            high = np.maximum(low, self._spacing_um(count) ** 2 / clock.frame_s)
            self.learning.learn(low, high)
            self._learn_flow()
            m, axes = self._memory, self._axes
            self.resolution.learn(m.measured.z[:axes, :count], m.measured.R[:axes, :count], self._extent_um)
        self.counts["ignored"] += len(detections) - count
        for at, name in (
            (track_life.LINKED, "linked"), (track_life.MISSED, "missed"), (track_life.BORN, "born"),
            (track_life.ENDED, "ended"),
        ):  # fmt: skip
            self.counts[name] += int(self._memory.tally[at])
        return tracks

    def finish(self) -> None:
        """End all tracks; what is learnt stays."""
        self.alive = 0
        self._look = SecondLook()

    def _begin(self, frame_s: float, count: int) -> None:
        """The first guesses, once the time between frames is known: tracks born before had none.

        The quarter of the particles that has a detection nearest to where it was is taken to be Brownian. A wide
        first guess would let the directed model, at rest, have the slow particles, and keep them.
        """
        step = (FIRST_STEP_SPACINGS * self._spacing_um(self.alive)) ** 2
        axes, memory = self._axes, self._memory
        if count:
            to = KDTree(memory.measured.z[:axes, :count].T)
            squares = to.query(self._state[motion.P : motion.P + axes, : self.alive].T)[0] ** 2
            near = float(np.quantile(squares, SLOW_PART)) / float(chi2.ppf(SLOW_PART, axes))
            noise = 2.0 * float(self._mean_variance[:axes].mean())
            step = min(step, max(near - noise, 0.1 * noise, 1e-3 * step))
        self.learning.start(step / frame_s)
        for m in (motion.D, motion.N):
            rows = slice(m * motion.ROWS + motion.VV, m * motion.ROWS + motion.VV + self._axes)
            self._state[rows, : self.alive] = self._unknown[: self._axes, None]

    def _slices(self, info: FrameInfo) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
        if info.volume is None:
            return NOTHING, NOTHING, NONE_MISSING
        z_um, time_s = np.array(info.volume.z_um), np.array(info.volume.time_s)
        if not info.volume.missing:
            return z_um, time_s, NONE_MISSING
        missing = np.zeros(z_um.size, np.bool_)
        missing[list(info.volume.missing)] = True
        return z_um, time_s, missing

    def _take(
        self,
        detections: Detections,
        focus_um: float,
        slices: tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]],
    ) -> int:
        m, rows, axes = self._memory, len(detections), self._axes
        m.reserve(self.alive + rows, rows)
        self._reserve(self.alive + rows, rows)
        m.measured.table[:, :rows] = detections.table
        count = int(kalman.take_detections(tuple(m.measured), rows, axes, focus_um, self._sigma, m.widest))
        offset = m.measured.table[OFFSET, m.measured.origin[:count]]
        z_um, time_s, _ = slices
        self._has_times |= bool(np.isfinite(offset).any())
        by_height = np.zeros(count)
        if time_s.size and axes == 3:
            by_height = np.interp(m.measured.z[2, :count] - focus_um, z_um, time_s)
        self._times[:count] = self._now + np.where(np.isfinite(offset), offset, by_height)
        if count:
            points = m.measured.z[:axes, :count]
            np.minimum(self._low[:axes], points.min(axis=1), out=self._low[:axes])
            np.maximum(self._high[:axes], points.max(axis=1), out=self._high[:axes])
            self._low[axes:] = self._high[axes:] = 0.0
            self._mean_variance[:axes] = m.measured.R[:axes, :count].mean(axis=1)
            self.flow.cover(self._low, self._high)
            if axes == 3 and z_um.size > 1:
                self._learn_ends(m.measured.z[2, :count] - focus_um, z_um)
        seen = np.where(np.isfinite(self._low), self._high - self._low, 0.0)
        self._extent_um = np.maximum(seen, SMALLEST_EXTENT_SIGMAS * self._sigma)
        if z_um.size > 1:  # the stack is known, however few particles there are
            self._extent_um[2] = max(seen[2], float(z_um[-1]))
        return count

    def _learn_ends(self, heights: FloatArray, z_um: FloatArray) -> None:
        """Learn between which `heights` above the first slice particles are seen, had they the same density
        everywhere: the lowest and highest of all would move outwards with each error of a position.

        An end is not far from an end of the stack: else it is that of a group of particles, which may move on.
        """
        low, high = np.quantile(heights, (END_PART, 1.0 - END_PART))
        beyond = END_PART / (1.0 - 2.0 * END_PART) * (high - low)
        now = np.array([low - beyond, high + beyond])
        self._weight *= math.exp(-1.0 / END_MEMORY_FRAMES)
        self._weight += heights.size
        self._found_ends += heights.size / self._weight * (now - self._found_ends)
        stack = z_um[[0, -1]]
        near = np.abs(self._found_ends - stack) <= (stack[1] - stack[0]) / (z_um.size - 1)
        self._ends = np.where(near, self._found_ends, stack)

    def _reserve(self, tracks: int, detections: int) -> None:
        have = self._state.shape[1]
        if tracks > have:
            size = max(tracks, 2 * have) + PADDING
            state = np.zeros((motion.STATES, size))
            label = np.zeros((motion.LABELS, size), np.int64)
            state[:, :have], label[:, :have] = self._state, self._label
            self._state, self._label = state, label
            self._seen, self._costs = np.zeros(size), np.zeros(size)
            self._merged = np.full(size, -1), np.zeros(size), np.zeros((3, size)), np.zeros((3, size))
        if detections > self._times.size:
            self._times = np.zeros(max(detections, 2 * self._times.size) + PADDING)

    def _spacing_um(self, count: int) -> float:
        width, height, _ = self._extent_um
        return math.sqrt(width * height / max(count, 1))

    def _chances(self) -> links.Chances:
        density = (self._births + 0.5) / float(self._extent_um[: self._axes].prod())
        return links.Chances(
            self.learning.detection, self.learning.survival, math.log(density), self._memory.widest
        )

    def _link(self, count: int) -> float:
        m, axes = self._memory, self._axes
        c, z, R = m.candidates, m.measured.z, m.measured.R
        index_points(z[:axes], R, count, tuple(c.grid))
        chances = self._chances()
        merging.pair_up(self._state, self.alive, axes, self.resolution.width_um, *self._merged, self._seen)
        found = OVERFLOW
        while found == OVERFLOW:
            found = links.gate(
                self._state, self.alive, axes, z, R, self._times, count, tuple(chances), self._seen, tuple(c.grid),
                tuple(c.found), self._merged,
            )  # fmt: skip
            if found == OVERFLOW:
                c.grow_candidates()
        no_link = -2.0 * chances.new
        solve((*c.found, no_link, self.alive, count), tuple(m.assignment.memory))
        links.chosen_costs(self.alive, tuple(c.found), m.assignment.memory.column_of, no_link, self._costs)
        return no_link

    def _update(
        self, info: FrameInfo, clock: FrameClock, focus_um: float, count: int, moving: motion.Motion, no_link:
        float, born: int,
    ) -> FloatArray:  # fmt: skip
        m, learning = self._memory, self.learning
        rows = np.full((track_life.COLUMNS, self.alive + count), np.nan)
        life.advance(
            (self._state, self._label, self.alive, born),
            (m.assignment.memory.column_of, *self._merged),
            self._costs,
            tuple(m.measured),
            self._times,
            count,
            self._seen,
            no_link,
            (
                self._axes, self.settings.confirm_hits,
                (self.settings.max_gap_frames + 1) * clock.typical - 1, learning.directed, REAL, learning.detection,
            ),
            (info.frame, clock.elapsed, focus_um, self._now),
            tuple(moving),
            tuple(self.flow.flow),
            (rows, m.tally, m.taken, learning.sums),
            self._work,
        )  # fmt: skip
        self.alive = int(m.tally[track_life.ALIVE])
        new = float(m.tally[track_life.BORN])
        if not self._frames_seen:  # all of the first frame's were there before
            new *= 1.0 - self.learning.survival
        self._frames_seen += count > 0
        self._births += (new - self._births) * max(BIRTH_MEMORY, 1.0 / max(self._frames_seen, 1))
        if info.volume is None and not self._has_times:
            rows[life.OFFSET] = np.nan  # images
        return rows

    def _tried(self, no_link: float) -> npt.NDArray[np.int64]:
        """The links that were thought of but not chosen: numbers of tracks, and detections."""
        m = self._memory
        found, chosen = m.candidates.found, m.assignment.memory
        per_row = np.diff(found.indptr[: self.alive + 1])
        rows = np.repeat(np.arange(self.alive), per_row)
        columns, costs = found.indices[: rows.size], found.costs[: rows.size]
        is_own = chosen.column_of[rows] == columns
        # what the track loses by such a link, and who has the detection, by its next best one
        other = np.full(self.alive, no_link)
        np.minimum.at(other, rows[~is_own], costs[~is_own])
        gives_up = np.zeros(self._times.size)
        gives_up[columns[is_own]] = other[rows[is_own]] - costs[is_own]
        more = costs - self._costs[rows] + gives_up[columns]
        kept = (more < UNLIKELY) & ~is_own
        return np.stack([self._label[motion.ID, rows[kept]], columns[kept].astype(np.int64)])

    def _kept(
        self, info: FrameInfo, clock: FrameClock, focus_um: float,
        slices: tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]], tried: npt.NDArray[np.int64], count: int,
    ) -> Kept:  # fmt: skip
        n, m = self.alive, self._memory.measured
        return Kept(
            info.frame, clock.elapsed, self._now, focus_um, slices, self._state[:, :n].copy(),
            self._label[:, :n].copy(), m.z[:, :count].copy(), m.R[:, :count].copy(), self._times[:count].copy(),
            tried,
        )  # fmt: skip

    def _look_again(
        self,
        rows: FloatArray,
        info: FrameInfo,
        clock: FrameClock,
        focus_um: float,
        moving: motion.Motion,
        born: int,
    ) -> FloatArray:
        """Decide the last links once more; returns the rows as they are then."""
        tally, axes = self._memory.tally, self._axes
        rules = Rules(
            axes, self.settings.confirm_hits, (self.settings.max_gap_frames + 1) * clock.typical - 1,
            self.learning.directed, REAL, life.LEAST_EXISTS,
        )  # fmt: skip
        look = self._look
        before, next_id = self.alive, born + int(tally[track_life.BORN])
        renamed = look.look(
            next_id, rules, tuple(self._chances()), tuple(moving), tuple(self.flow.flow), self._work
        )
        newest = look.newest
        changed = np.flatnonzero(look.touched(newest.label[motion.ID]))
        if not changed.size:
            return rows
        count = newest.label.shape[1]
        self._reserve(count, 0)
        at = places(self._label[motion.ID, : self.alive].copy(), newest.label[motion.ID])
        self._state[:, :count], self._label[:, :count] = newest.state, newest.label
        fresh = np.full((rows.shape[0], count), np.nan)
        fresh[:, at >= 0] = rows[:, at[at >= 0]]
        moment = (info.frame, clock.elapsed, focus_um, self._now)
        fresh[track_life.MORE, changed] = np.nan
        life.write_again(
            self._state, self._label, changed, tuple(self._memory.measured), self._times, axes, moment,
            tuple(moving), fresh,
        )  # fmt: skip
        if info.volume is None and not self._has_times:
            fresh[life.OFFSET] = np.nan
        for number, was in renamed.items():
            fresh[track_life.BEFORE, newest.label[motion.ID] == number] = was
        if renamed:
            self.counts["relinked"] = self.counts.get("relinked", 0) + len(renamed)
        tally[track_life.BORN] += look.born
        tally[track_life.ENDED] += before + look.born - count
        self.alive = count
        return fresh

    def _learn_flow(self) -> None:
        n, at = self.alive, motion.D * motion.ROWS
        label = self._label[:, :n]
        chosen = (label[motion.CONFIRMED] > 0) & (label[motion.LINK] >= 0) & (label[motion.SHARES] == 0)
        chosen &= self._state[motion.MU + motion.D, :n] > SETTLED_MU
        x, v = self._state[at + motion.P : at + motion.V], self._state[at + motion.V : at + motion.PP]
        self.flow.learn(x, v, chosen, self._state[at + motion.VV : at + motion.ROWS])
