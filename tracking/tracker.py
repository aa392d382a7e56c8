"""The online tracker: one call a frame turns detections into tracks, in memory that is kept and only grows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from stream.messages import Detections, FrameInfo, Tracks
from tracking import kalman
from tracking.assignment import AssignmentWorkspace, solve
from tracking.candidates import (
    OVERFLOW,
    CandidateWorkspace,
    gate_by_chi_square,
    gate_by_distance,
    index_points,
)
from tracking.flow_field import FlowField
from tracking.noise import StepNoise
from tracking.settings import TrackerSettings

FloatArray = npt.NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)

REACH_SIGMAS = 3.0
FIRST_STEP_SPACINGS = 0.1
SMALLEST_STEP_SIGMAS = 0.02
SPACINGS = 2.0
BIRTH_MEMORY = 0.1


@dataclass(slots=True)
class _Clock:
    """Where the last frame was: our number, the camera's, its time, and the frames elapsed since the start."""

    frame: int
    camera_frame: int
    time_s: float
    elapsed: int = 0

    def advance(self, info: FrameInfo, frame_rate_hz: float) -> tuple[float, int]:
        """Move to a later frame; returns dt, s, and the frames that it spans."""
        by_camera = info.camera_frame - self.camera_frame
        frames = by_camera if by_camera > 0 else info.frame - self.frame
        dt = info.time_s - self.time_s
        if not (math.isfinite(dt) and dt > 0):
            dt = frames / frame_rate_hz
        self.elapsed += frames
        self.frame, self.camera_frame, self.time_s = info.frame, info.camera_frame, info.time_s
        return dt, frames


class OnlineTracker:
    """Links the detections of successive frames into tracks.

    The first frame with particles decides between 3D (at least half of them have a depth) and 2D, for the
    whole run. In 3D a detection without depth is ignored and counted, as is, in either case, one whose x or y
    is not finite. In 2D depths are not used and come out as NaN.

    A frame whose number is not greater than the last one's is ignored and counted as duplicate. Elapsed frames
    are counted by the camera's image number where it advances, else by ours; a track ends when it was not
    detected for more than `max_gap_frames` of them, so a longer loss of frames ends all tracks. dt comes from
    the frames' times where they increase, else from `frame_rate_hz`. A tentative track ends at its first miss.

    Depths are tracked as height, focus + z, so that a focus move does not look like motion; a frame without
    focus reading counts as not moved. `counts` holds `born`, `ended`, `linked`, `missed` (predicted rows),
    `duplicates` (frames) and `ignored` (detections).
    """

    def __init__(self, settings: TrackerSettings) -> None:
        self.settings = settings
        self.counts = dict.fromkeys(("born", "ended", "linked", "missed", "duplicates", "ignored"), 0)
        self._flow_mode = settings.mode == "flow"
        self._confirm = settings.confirm_hits if self._flow_mode else settings.min_length_frames
        self._max_gap = settings.max_gap_frames if self._flow_mode else 0
        self._axes = 0
        self._alive = 0
        self._clock: _Clock | None = None
        self._focus_um = 0.0
        self._births = 0.0
        self._judged = 0
        self._gate = 0.0
        self._frame_s = 0.0
        self._low = np.full(3, np.inf)
        self._high = np.full(3, -np.inf)
        self._noise = StepNoise(settings.diffusion_um2_s)
        self._flow = FlowField(3)
        self._assignment = AssignmentWorkspace()
        self._candidates = CandidateWorkspace()
        self._state: FloatArray = np.zeros((kalman.STATES, 0))
        self._label = np.zeros((kalman.LABELS, 0), np.int64)
        self._settled = np.zeros(0, np.bool_)
        self._table: FloatArray = np.zeros((len(Detections.COLUMNS), 0))
        self._points: FloatArray = np.zeros((3, 0))
        self._variances: FloatArray = np.zeros((3, 0))
        self._origin = np.zeros(0, np.int32)
        self._taken = np.zeros(0, np.bool_)
        self._widest: FloatArray = np.zeros(3)
        self._mean_variance: FloatArray = np.zeros(3)
        self._unknown: FloatArray = np.zeros(3)
        self._tally = np.zeros(6, np.int64)
        self._below = np.zeros(3, np.int64)
        self._reserve(256, 256)

    @property
    def alive(self) -> int:
        """Tracks alive after the last step, tentative ones included."""
        return self._alive

    @property
    def axes(self) -> int:
        """3 or 2; 0 before the first particle."""
        return self._axes

    def diffusion_um2_s(self) -> float:
        """The in-plane diffusion coefficient that the filter works with; NaN before it has one."""
        return float(self._noise.rate[:2].mean() / 2.0) if self._noise.ready else math.nan

    def warmup(self) -> None:
        """Compile everything a live run needs (seconds at first, then from numba's cache)."""
        rng = np.random.default_rng(0)
        for mode in ("flow", "hungarian"):
            scratch = OnlineTracker(self.settings.model_copy(update={"mode": mode}))
            for frame in range(2 * self.settings.confirm_hits + 4):
                info = FrameInfo("warmup", frame, frame, float(frame), 0, 0.0)
                x, y, z = rng.uniform(0.0, 100.0, (3, 40))
                scratch.step(Detections.from_columns(info, x_um=x, y_um=y, z_um=z))

    def step(self, detections: Detections) -> Tracks:
        """Link one frame; returns a row for each live track, in order of track number.

        A repeated or earlier frame gives an empty table and changes nothing.
        """
        info = detections.info
        dt = 0.0
        if self._clock is None:
            self._clock = _Clock(info.frame, info.camera_frame, info.time_s)
        elif info.frame <= self._clock.frame:
            self.counts["duplicates"] += 1
            return Tracks.empty(info)
        else:
            dt, frames = self._clock.advance(info, self.settings.frame_rate_hz)
            self._frame_s = dt / frames
        if math.isfinite(info.focus_um):
            self._focus_um = info.focus_um
        count = self._take(detections)
        self._observe(count)
        if self._flow_mode and self._alive:
            self._predict(dt)
        self._link(count)
        tracks = self._update(info, count, dt)
        if self._flow_mode and self._alive and dt > 0:
            self._learn(count)
        return tracks

    def finish(self) -> None:
        """End all live tracks and count them."""
        self.counts["ended"] += self._alive
        self._alive = 0

    def _reserve(self, tracks: int, detections: int) -> None:
        """Make room for `tracks` live tracks and `detections` of one frame."""
        have = self._state.shape[1]
        if tracks > have:
            size = max(tracks, 2 * have)
            self._state = _widened(self._state, size)
            self._label = _widened(self._label, size)
            self._settled = np.zeros(size, np.bool_)
        if detections > self._origin.size:
            size = max(detections, 2 * self._origin.size)
            self._table = np.zeros((len(Detections.COLUMNS), size))
            self._points = np.zeros((3, size))
            self._variances = np.zeros((3, size))
            self._origin = np.zeros(size, np.int32)
            self._taken = np.zeros(size, np.bool_)
        self._candidates.reserve(tracks, detections)
        self._assignment.reserve(tracks, detections)

    def _take(self, detections: Detections) -> int:
        rows = len(detections)
        self._reserve(self._alive + rows, rows)
        self._table[:, :rows] = detections.table
        if self._axes == 0 and rows:
            self._decide_axes(detections)
        s = self.settings
        count = int(
            kalman.take_detections(
                self._table,
                rows,
                self._axes,
                self._focus_um,
                s.sigma_xy_um,
                s.sigma_z_um,
                self._points,
                self._variances,
                self._origin,
                self._widest,
            )  # fmt: skip
        )
        self.counts["ignored"] += rows - count
        if count:
            self._mean_variance[: self._axes] = self._variances[: self._axes, :count].mean(axis=1)
        return count

    def _decide_axes(self, detections: Detections) -> None:
        usable = np.isfinite(detections.x_um) & np.isfinite(detections.y_um)
        if not usable.any():
            return
        with_depth = np.isfinite(detections.z_um[usable]).mean()
        self._axes = 3 if with_depth >= 0.5 else 2
        self._gate = float(chi2.isf(self.settings.gate_tail, self._axes))
        self._flow = FlowField(self._axes)

    def _observe(self, count: int) -> None:
        """Widen the volume seen so far."""
        if count:
            axes = self._axes
            points = self._points[:axes, :count]
            np.minimum(self._low[:axes], points.min(axis=1), out=self._low[:axes])
            np.maximum(self._high[:axes], points.max(axis=1), out=self._high[:axes])
            self._low[axes:] = self._high[axes:] = 0.0
            if self._flow_mode:
                self._flow.cover(self._low, self._high)

    def _spacing_um(self, count: int) -> float:
        """Mean in-plane distance between neighbours, from the field of view and the particles in it."""
        extent = np.maximum(self._high[:2] - self._low[:2], 20.0 * self.settings.sigma_xy_um)
        return float(math.sqrt(extent[0] * extent[1] / max(count, 1)))

    def _reach_um(self, count: int) -> float:
        return self.settings.max_displacement_um or SPACINGS * self._spacing_um(count)

    def _predict(self, dt: float) -> None:
        noise = self._noise
        if not noise.ready:
            noise.start(
                np.full(3, (FIRST_STEP_SPACINGS * self._spacing_um(self._alive)) ** 2 / self._frame_s)
            )
        if not self._unknown.any():
            # The first frame's particles were born before the time between frames was known.
            self._set_unknown(self._alive)
            self._state[kalman.VV :, : self._alive] = self._unknown[:, None]
        step = noise.rate * dt
        forget = 1.0 / self.settings.velocity_memory_frames
        wander = (forget**2 * step + forget**4 * self._mean_variance * dt / self._frame_s) / self._frame_s**2
        kalman.predict(
            self._state,
            self._alive,
            self._axes,
            dt,
            step,
            wander,
            self._flow.fits,
            self._flow.box,
            self._flow.shape,
        )

    def _link(self, count: int) -> None:
        a, c, axes = self._assignment, self._candidates, self._axes
        index_points(
            self._points[:axes],
            self._variances[:axes],
            count,
            c.geometry,
            c.starts,
            c.order,
            c.cell_of,
            c.sorted,
        )
        limit = self.settings.max_distance_um**2
        no_link_cost = self._no_link_cost() if self._flow_mode else math.nextafter(limit, math.inf)
        widest = np.minimum(self._widest, self._reach_um(max(count, 1)) ** 2)
        while True:
            if self._flow_mode:
                found = gate_by_chi_square(
                    self._state[kalman.P : kalman.V], self._state[kalman.PP : kalman.PV], self._alive, self._gate,
                    no_link_cost, c.geometry, c.starts, c.order, c.sorted, count, widest,
                    c.indptr, c.indices, c.costs, axes,
                )  # fmt: skip
            else:
                found = gate_by_distance(
                    self._state[kalman.P : kalman.V], self._alive, limit, c.geometry, c.starts, c.order, c.sorted,
                    c.indptr, c.indices, c.costs, axes,
                )  # fmt: skip
            if found != OVERFLOW:
                break
            c.grow_candidates(2 * c.indices.size)
        solve(
            c.indptr, c.indices, c.costs, no_link_cost, self._alive, count,
            a.row_price, a.column_of, a.waiting,
            a.column_price, a.row_of, a.distance, a.parent, a.heap, a.place, a.touched,
        )  # fmt: skip

    def _no_link_cost(self) -> float:
        """Cost of a miss: -2 ln of (miss and a new particle here) over (detected), in the units of d^2 + ln|S|."""
        axes = max(self._axes, 2)
        extent = np.maximum(self._high[:axes] - self._low[:axes], 20.0 * self._fallback()[:axes])
        extent = np.where(np.isfinite(extent), extent, 1.0)
        density = (self._births + 0.5) / float(extent.prod())
        hit = self.settings.detection_probability
        return -2.0 * math.log((1.0 - hit) / hit) - axes * math.log(2.0 * math.pi) - 2.0 * math.log(density)

    def _fallback(self) -> FloatArray:
        s = self.settings
        return np.array([s.sigma_xy_um, s.sigma_xy_um, s.sigma_z_um])

    def _set_unknown(self, count: int) -> None:
        """Velocity variance of a particle of which nothing is known, from how far it may move in a frame."""
        self._unknown[:] = (self._reach_um(count) / REACH_SIGMAS / self._frame_s) ** 2

    def _update(self, info: FrameInfo, count: int, dt: float) -> Tracks:
        assert self._clock is not None
        if count and self._frame_s > 0:
            self._set_unknown(count)
        output = np.empty((kalman.COLUMNS, self._alive + count))
        kalman.update(
            self._state, self._label, self._alive, self.counts["born"], self._axes, self._assignment.column_of,
            self._points, self._variances, self._origin, count, self._table,
            info.frame, self._clock.elapsed, self._focus_um, self._confirm, self._max_gap, self._flow_mode, dt,
            self._flow.fits, self._flow.box, self._flow.shape, self._unknown,
            output, self._tally, self._below, self._settled, self._taken,
        )  # fmt: skip
        linked, missed, born, ended, alive, self._judged = (int(n) for n in self._tally)
        self._alive = alive
        for name, number in (("linked", linked), ("missed", missed), ("born", born), ("ended", ended)):
            self.counts[name] += number
        self._births += (born - self._births) * (BIRTH_MEMORY if self._births else 1.0)
        return Tracks(info, np.ascontiguousarray(output[:, :alive]))

    def _learn(self, count: int) -> None:
        n = self._alive
        low = (SMALLEST_STEP_SIGMAS**2 * self._mean_variance + 1e-12) / self._frame_s
        high = np.maximum(low, self._spacing_um(count) ** 2 / self._frame_s)
        self._noise.learn(self._below, self._judged, low, high)
        positions, velocities = self._state[kalman.P : kalman.V, :n], self._state[kalman.V : kalman.PP, :n]
        self._flow.learn(positions, velocities, self._settled[:n])


def _widened(array: npt.NDArray[Scalar], size: int) -> npt.NDArray[Scalar]:
    wide = np.zeros((array.shape[0], size), array.dtype)
    wide[:, : array.shape[1]] = array
    return wide
