"""Follows a change of the whole flow, once it is noticed: the frame is linked again with what all tracks have in
common, or what was learnt of the flow is forgotten. What they have in common is found in `tracking.flow_change`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tracking.flow_change import (
    FACTOR,
    RECOVERED,
    STEP_X,
    Change,
    ChangeWatch,
    apply_factor,
    apply_step,
    common_change,
    find_astray,
)
from tracking.flow_field import FlowField
from tracking.sides.chooser import SideChooser
from tracking.track_memory import TrackMemory

CHANGED_WEIGHT = 0.1
"""Weight of what was learnt of the flow after its speed has changed: new velocities count more within frames."""


class Scene(NamedTuple):
    """A frame whose tracks are predicted and linked.

    `alive` tracks and `detections` of `axes` axes are in the `memory`, `dt_s` after the frame before, of
    which `last_clock` is the clock; `confirm` detections make a track, and `gate` is the limit of d^2. Steps are at
    most `reach_um` (3,).
    """

    memory: TrackMemory
    alive: int
    detections: int
    axes: int
    dt_s: float
    last_clock: int
    confirm: int
    gate: float
    reach_um: npt.NDArray[np.float64]


class ChangeFollower:
    """Looks at each frame whether the flow has changed, and follows; `changes` says how often it did."""

    def __init__(self) -> None:
        self.changes = 0
        self._watch = ChangeWatch()
        self._last: Change | None = None
        self._lost_frames = 0

    def follow(self, scene: Scene, flow: FlowField, sides: SideChooser, link: Callable[[], None]) -> None:
        """Look whether the flow has changed as a whole; if so, `link` again with what all have in common.

        Where nothing is found in two frames in a row, what was learnt of the flow is forgotten.
        """
        tracks, astray, free = _astray(scene, sides)
        if not self._watch.is_alarm(tracks, astray, free):
            self._lost_frames, self._last = 0, None
            return
        change = _common(scene)
        if change is not None and self._takes(change, scene, astray, flow, sides, link):
            self.changes += 1
            self._lost_frames, self._last = 0, change
            return
        self._lost_frames, self._last = self._lost_frames + 1, None
        if self._lost_frames == 2:
            self.changes += 1
            flow.forget()
            sides.forget()

    def _takes(
        self,
        change: Change,
        scene: Scene,
        astray: int,
        flow: FlowField,
        sides: SideChooser,
        link: Callable[[], None],
    ) -> bool:
        """Link with this change; back to what was if it does not put most of the tracks right that are `astray`."""
        state, n, dt_s = scene.memory.state, scene.alive, scene.dt_s
        before = state[:, :n].copy()
        if change.direction == FACTOR:
            apply_factor(state, n, scene.axes, dt_s, change.t)
        else:
            goes_on = self._last is not None and self._last.direction == change.direction
            apply_step(state, n, change.direction - STEP_X, dt_s, change.t, goes_on=goes_on)
        link()
        if _astray(scene, sides)[1] > (1.0 - RECOVERED) * astray:
            state[:, :n] = before
            link()
            return False
        if change.direction == FACTOR:
            flow.multiply(1.0 + change.t, CHANGED_WEIGHT)
            sides.apply_factor(n, dt_s, change.t)
        else:
            flow.forget()
        sides.forget()
        return True


def compile_for(scene: Scene) -> None:
    """Look for a change as after an alarm, and apply one of no size, so that it is compiled for a live run."""
    _common(scene)
    apply_factor(scene.memory.state, scene.alive, scene.axes, scene.dt_s, 0.0)


def _common(scene: Scene) -> Change | None:
    m, axes, count = scene.memory, scene.axes, scene.detections
    found = (m.measured.z[:axes, :count], m.measured.R[:axes, :count])
    return common_change(m.state, m.fresh[: scene.alive], found, axes, scene.dt_s, scene.gate, scene.reach_um)


def _astray(scene: Scene, sides: SideChooser) -> tuple[int, int, int]:
    """How many tracks should have been detected, how many of these are astray, and free detections."""
    m, n = scene.memory, scene.alive
    # With two depths a link may have taken the other one, so that the first says nothing.
    axes = 2 if sides.is_active else scene.axes
    rules = (axes, scene.confirm, scene.last_clock, scene.gate, scene.detections)
    measured = (m.measured.z, m.measured.R)
    links = m.assignment.memory.column_of
    tracks, astray, free = find_astray(m.state, m.label, links, measured, rules, m.fresh[:n], m.astray[:n])
    return int(tracks), int(astray), int(free)
