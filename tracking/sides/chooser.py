"""Decides the side of focus of all tracks, once detections carry second depths; until then it costs nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tracking.flow_field import FlowField
from tracking.kalman import POSITION, PP as VELOCITY_END, VELOCITY, Measured
from tracking.sides import two_branches
from tracking.sides.two_branches import IS_OPEN, ODDS, PP, SECONDS, SIDES, VV, VV_XY, Z_OTHER, Z

FloatArray = npt.NDArray[np.float64]
import os
CELLS = tuple(int(c) for c in os.environ.get("CELLS", "2,2,8").split(","))
DOUBTFUL = 0.5
"""Log-odds, relative to the mean of all tracks, below which the flow is not learnt from a track. Tracks on the wrong
side would teach the flow to others on the wrong side. At the start all are equally sure, and all teach."""
NOTHING: FloatArray = np.empty((2, 0))


class SideChooser:
    """The two branches of each track (see `tracking.sides.two_branches`).

    `memory_frames` is how far back a decision for the other side revises a track. In each frame, `take` the detections,
    `predict`, link by `gates`, `resolve`, advance the tracks, and `write` the rows.
    """

    def __init__(self, memory_frames: int) -> None:
        self.is_active = False
        self.revised = 0
        self._memory_frames = memory_frames
        self._sides: FloatArray = np.zeros((SIDES, 0))
        self._seconds: FloatArray = np.zeros((SECONDS, 0))
        self._flow = FlowField(3, cells=CELLS)
        self._count = 0
        self._detections = 0

    def take(self, measured: Measured, rows: int, count: int, height_um: float, axes: int) -> None:
        """Take the second depths of a frame's `count` usable detections among `rows`."""
        if axes != 3:
            return
        if not self.is_active:
            self.is_active = bool(np.isfinite(measured.table[Z_OTHER, :rows]).any())
        if self.is_active:
            if self._seconds.shape[1] < measured.origin.size:
                self._seconds = np.zeros((SECONDS, measured.origin.size))
            self._detections = count
            two_branches.take_seconds(tuple(measured), count, height_um, self._seconds)

    def predict(
        self, label: npt.NDArray[np.int64], alive: int, dt_s: float, step: FloatArray, wander: FloatArray
    ) -> None:
        """Predict the branches of the tracks that are alive."""
        if self.is_active:
            self._follow(label, alive)
            two_branches.predict(self._sides, self._count, dt_s, step, wander)

    def _follow(self, label: npt.NDArray[np.int64], alive: int) -> int:
        """Give each live track its column; returns how many of them had one."""
        if self._sides.shape[1] < label.shape[1]:
            wide = np.zeros((SIDES, label.shape[1]))
            wide[:, : self._sides.shape[1]] = self._sides
            self._sides = wide
        known = int(two_branches.align(self._sides, self._count, label, alive))
        two_branches.extend(self._sides, known, label, alive)
        self._count = alive
        return known

    def set_unknown(self, variance: FloatArray) -> None:
        """Set the variance (3,) of velocities of tracks that began before the time between frames was known."""
        self._sides[[VV_XY, VV_XY + 1, VV], : self._count] = variance[:, None]

    def gates(self, alive: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """For the links: second heights (M,), and each track's other branch, height and variance; empty if none.

        All in um and um^2; NaN where there is none.
        """
        if not self.is_active:
            return NOTHING[0], NOTHING[0], NOTHING[0]
        sides = self._sides
        sides[two_branches.GATE_Z, :alive] = np.nan
        is_open = sides[IS_OPEN, :alive] > 0
        np.copyto(sides[two_branches.GATE_Z, :alive], sides[Z + 1, :alive], where=is_open)
        return self._seconds[two_branches.OTHER_Z], sides[two_branches.GATE_Z], sides[PP]

    def learn(self, state: FloatArray, settled: npt.NDArray[np.bool_], low: FloatArray, high: FloatArray) -> None:
        """Learn the flow from the `settled` tracks (N,); `low` and `high` (3,) is the volume seen, um."""
        if self.is_active:
            self._flow.cover(low, high)
            self._flow.learn(state[POSITION:VELOCITY], state[VELOCITY:VELOCITY_END], self._sure(settled))

    def _sure(self, settled: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Those of the `settled` tracks (N,) from which the flow is learnt: not the doubtful ones among many."""
        is_open = self._sides[IS_OPEN, : settled.size] > 0
        odds = self._sides[ODDS, : settled.size]
        among = is_open & settled
        if not among.any():
            return settled
        return settled & ~(is_open & (odds < DOUBTFUL * odds[among].mean()))

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
        """Choose the depths of the linked detections, in `measured`, and of the tracks, in `state`."""
        if self.is_active:
            about = (frame, height_um, self._memory_frames)
            branches = (tuple(measured), self._seconds, tuple(self._flow.flow), unknown, about)
            two_branches.resolve(self._sides, state, alive, links, *branches)

    def write(
        self,
        rows: FloatArray,
        state: FloatArray,
        label: npt.NDArray[np.int64],
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
        new = (rows, tuple(measured), self._detections, self._seconds, tuple(self._flow.flow), unknown, frame)
        two_branches.begin(self._sides, known, state, label, alive, *new)
        self.revised += int(
            two_branches.write(
                self._sides, alive, rows, tuple(measured), self._detections, self._seconds, height_um
            )
        )
