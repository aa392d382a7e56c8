"""Decides the side of focus of all tracks, once detections carry second depths; until then it costs nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tracking import kalman
from tracking.flow_field import MEMORY_FRAMES, FlowField
from tracking.kalman import Measured
from tracking.sides import columns, two_branches
from tracking.sides.columns import (
    GATE_Z,
    IS_OPEN,
    ODDS,
    OTHER_Z,
    OWN,
    PP,
    PP_XY,
    PV,
    PV_XY,
    VV,
    VV_XY,
    VXY,
    XY,
    Z_OTHER,
    V,
    Z,
)

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

CELLS = (2, 2, 8)
"""Cells in x, y and z of this flow field: fewer in the plane than the tracker's own has (5, 5, 8), so that some
particles are in each with a few hundred in view. Velocity varies most over depth, which is what decides here."""
MEMORY = math.exp(-1.0 / MEMORY_FRAMES)
SETTLING_FRAMES = 15
"""Frames at the start of a run in which the flow is not learnt: until the tracker has learnt the particles' random
steps, velocities have errors that would spoil the scatter for long. Fewer: 5 % more wrong sides in still water."""
DOUBTFUL = 0.5
"""Log-odds, relative to the mean of all tracks, below which the flow is not learnt from a track: those on the wrong
side would make it right for others. At the start all are equally sure, and all teach."""
NOTHING: FloatArray = np.empty(0)


class SideChooser:
    """The two branches of each track (see `tracking.sides.two_branches`).

    `memory_frames` is how far back a decision for the other side revises a track. In each frame: `take` the
    detections, `predict`, link by `gates`, `resolve`, advance the tracks, `write` the rows, `learn`.
    """

    def __init__(self, memory_frames: int) -> None:
        self.is_active = False
        self.revised = 0
        self._memory_frames = memory_frames
        self._sides: FloatArray = np.zeros((columns.SIDES, 0))
        self._seconds: FloatArray = np.zeros((columns.SECONDS, 0))
        self._flow = FlowField(3, cells=CELLS, first_samples=math.inf)  # its memory is that of `OWN`
        self._count = 0
        self._detections = 0
        self._learnt = 0

    def take(self, measured: Measured, rows: int, count: int, height_um: float, axes: int) -> None:
        """Take the second depths of a frame's `count` usable detections among `rows`."""
        if axes != 3:
            return
        if not self.is_active:
            self.is_active = bool(np.isfinite(measured.table[Z_OTHER, :rows]).any())
        if self.is_active:
            if self._seconds.shape[1] < measured.origin.size:
                self._seconds = np.zeros((columns.SECONDS, measured.origin.size))
            self._detections = count
            columns.take_seconds(tuple(measured), count, height_um, self._seconds)

    def predict(self, label: IntArray, alive: int, dt_s: float, step: FloatArray, wander: FloatArray) -> None:
        """Predict the branches of the tracks that are alive."""
        if self.is_active:
            self._follow(label, alive)
            two_branches.predict(self._sides, alive, dt_s, step, wander)

    def _follow(self, label: IntArray, alive: int) -> int:
        """Give each live track its column; returns how many of them had one."""
        if self._sides.shape[1] < label.shape[1]:
            wide = np.zeros((columns.SIDES, label.shape[1]))
            wide[:, : self._sides.shape[1]] = self._sides
            self._sides = wide
        known = int(columns.align(self._sides, self._count, label, alive))
        columns.extend(self._sides, known, label, alive)
        self._count = alive
        return known

    def set_unknown(self, variance: FloatArray) -> None:
        """Set the variance (3,) of velocities of tracks that began before the time between frames was known."""
        self._sides[[VV_XY, VV_XY + 1, VV], : self._count] = variance[:, None]

    def forget(self) -> None:
        """Forget what the flow was."""
        self._flow.forget()
        self._sides[OWN : OWN + 2] = 0.0

    def apply_factor(self, alive: int, dt_s: float, t: float) -> None:
        """Let the velocities of the predicted branches have been 1 + t times as large for the last `dt_s`."""
        if not self.is_active:
            return
        sides = self._sides[:, :alive]
        for place, speed, pp, pv, vv in (
            (Z, V, PP, PV, VV), (Z + 1, V + 1, PP, PV, VV), (XY, VXY, PP_XY, PV_XY, VV_XY),
            (XY + 1, VXY + 1, PP_XY + 1, PV_XY + 1, VV_XY + 1),
        ):  # fmt: skip
            change = t * sides[speed]
            sides[place] += change * dt_s
            sides[speed] += change
            sides[vv] += change**2
            sides[pv] += change**2 * dt_s
            sides[pp] += change**2 * dt_s**2

    def gates(self, alive: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """For the links: second heights (M,), and each track's other branch, height and variance; empty if none.

        All in um and um^2; NaN where there is none.
        """
        if not self.is_active:
            return NOTHING, NOTHING, NOTHING
        sides = self._sides
        sides[GATE_Z, :alive] = np.nan
        np.copyto(sides[GATE_Z, :alive], sides[Z + 1, :alive], where=sides[IS_OPEN, :alive] > 0)
        return self._seconds[OTHER_Z], sides[GATE_Z], sides[PP]

    def resolve(
        self,
        state: FloatArray,
        alive: int,
        links: Any,
        measured: Measured,
        unknown: FloatArray,
        frame: int,
        height_um: float,
    ) -> None:
        """Choose the depths of the linked detections, in `measured`, and of the tracks, in `state`.

        `links` is the detection of each track, -1 for none; `unknown` (3,) is the variance of unknown velocities.
        """
        if self.is_active:
            given = (tuple(measured), self._seconds, tuple(self._flow.flow), unknown)
            two_branches.resolve(
                self._sides, state, alive, links, *given, frame, height_um, self._memory_frames
            )

    def write(
        self,
        rows: FloatArray,
        state: FloatArray,
        label: IntArray,
        alive: int,
        measured: Measured,
        unknown: FloatArray,
        frame: int,
        height_um: float,
    ) -> None:
        """Write the sides into the rows of `Tracks`; new tracks begin with both."""
        if not self.is_active:
            return
        known = self._follow(label, alive)
        given = (tuple(measured), self._detections, self._seconds)
        two_branches.begin(
            self._sides,
            known,
            state,
            label,
            alive,
            rows,
            *given,
            tuple(self._flow.flow),
            unknown,
            frame,
            height_um,
        )
        self.revised += int(columns.write(self._sides, alive, rows, *given, height_um))

    def learn(self, state: FloatArray, settled: BoolArray, low: FloatArray, high: FloatArray) -> None:
        """Learn the flow from the `settled` tracks (N,); `low` and `high` (3,) is the volume seen, um."""
        if not self.is_active:
            return
        flow, sides, n = self._flow, self._sides, settled.size
        teachers = self._sure(settled)
        flow.cover(low, high)
        self._learnt += 1
        if self._learnt <= SETTLING_FRAMES:
            return
        sides[OWN : OWN + 2] *= MEMORY
        sides[OWN, :n] += teachers
        places, velocities = state[kalman.POSITION : kalman.VELOCITY], state[kalman.VELOCITY : kalman.PP]
        flow.learn(places, velocities, teachers)

    def _sure(self, settled: BoolArray) -> BoolArray:
        """Those of the `settled` tracks (N,) from which the flow is learnt: not the doubtful ones among many."""
        is_open = self._sides[IS_OPEN, : settled.size] > 0
        odds = self._sides[ODDS, : settled.size]
        among = is_open & settled
        if not among.any():
            return settled
        sure: BoolArray = settled & ~(is_open & (odds < DOUBTFUL * odds[among].mean()))
        return sure
