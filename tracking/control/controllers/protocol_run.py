"""Runs a protocol: slice after slice, each until it has been measured for long enough or well enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream.messages import Command, CommandKind, CommandReply, Tracks
from tracking.control.controllers.controller_interface import Controller, Happening
from tracking.control.controllers.sufficiency import Sufficiency
from tracking.control.protocol_settings import Enough, ProtocolSettings, StepSettings, UntilEnoughSettings

if TYPE_CHECKING:
    from tracking.physics.live.follower import LiveFlow

LONGEST_WAIT_S = 90.0
"""How long to wait for the replies to a slice's commands before the run ends, s. A focus drive or pump may take
tens of seconds over its range; the acquisition holds a command for at most a minute. Longer only delays the
error."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice of a protocol: its set-points and its place in the order."""

    index: int
    repeat: int
    name: str
    focus_um: float | None
    flow_ul_s: float | None
    step: StepSettings

    def facts(self) -> dict[str, Any]:
        """Its set-points, for the record."""
        known = {
            "slice": self.index,
            "repeat": self.repeat,
            "name": self.name,
            "focus_um": self.focus_um,
            "flow_ul_s": self.flow_ul_s,
            "target": self.step.target,
        }
        return {key: value for key, value in known.items() if value not in {None, ""}}


def slices_of(settings: ProtocolSettings) -> list[Slice]:
    """Every slice of a protocol in order."""

    def expanded() -> Iterator[Slice]:
        index = 0
        for repeat in range(settings.repeats):
            for step in settings.steps:
                for focus_um in step.foci_um():
                    yield Slice(index, repeat, step.name, focus_um, step.flow_ul_s, step)
                    index += 1

    return list(expanded())


def until_enough(settings: UntilEnoughSettings) -> ProtocolRun:
    """A protocol of one step that measures every slice until the criteria are met."""
    enough = Enough(**settings.model_dump(include=set(Enough.model_fields)))
    step = StepSettings(focus_um=settings.slices, settle_s=settings.settle_s, until=enough)
    return ProtocolRun(ProtocolSettings(steps=[step]), None, name="until_enough")


class ProtocolRun:
    """A controller that measures the slices in order; an inner controller may hold flow or focus meanwhile.

    A slice begins with its commands, is measured from the first frame that shows all of them (plus `settle_s`),
    and ends by its own criterion. A refused command ends the run with the reason, because the rest of the protocol
    would not be as planned. `happenings` reports the beginning and end of every slice.
    """

    def __init__(
        self, settings: ProtocolSettings, inner: Controller | None, *, name: str = "protocol"
    ) -> None:
        self.name = name
        self._slices = slices_of(settings)
        self._next = settings.resume_at
        self._inner = inner
        self._now: Slice | None = None
        self._waiting: set[str] = set()
        self._sent_s = math.nan
        self._from_frame = -1
        self._first_frame = -1
        self._tracked = 0
        self._first_s = self._arrived_s = math.nan
        self._sufficiency: Sufficiency | None = None
        self._happenings: list[Happening] = []
        self._refused = ""
        self._over = False

    @property
    def slices(self) -> int:
        """Number of slices."""
        return len(self._slices)

    def measured(self) -> dict[str, float]:
        """Number of the slice, progress in it, and the inner controller's measured values."""
        own = {"slice": float(self._now.index if self._now is not None else self._next)}
        if self._sufficiency is not None:
            own |= self._sufficiency.measured()
        inner = getattr(self._inner, "measured", None)
        return own | (inner() if inner is not None else {})

    def happenings(self) -> list[Happening]:
        """Entries for the record since the last call, with those of the inner controller."""
        found, self._happenings = self._happenings, []
        inner: Callable[[], list[Happening]] | None = getattr(self._inner, "happenings", None)
        return found + (inner() if inner is not None else [])

    def acknowledged(self, ack: CommandReply) -> None:
        """Note the first frame that shows the slice's set-points, or that one was refused."""
        if ack.command_id in self._waiting:
            self._waiting.discard(ack.command_id)
            self._from_frame = max(self._from_frame, ack.first_frame)
            if not ack.accepted:
                self._refused = ack.reason
            return
        heard = getattr(self._inner, "acknowledged", None)
        if heard is not None:
            heard(ack)

    def flow_fitted(self, flow: LiveFlow) -> None:
        """Judge the slice by a fit of the flow, and pass it on."""
        if self._sufficiency is not None:
            self._sufficiency.flow_fitted(flow.findings)
        inner = getattr(self._inner, "flow_fitted", None)
        if inner is not None:
            inner(flow)

    def released(self) -> None:
        """Measure the current slice again from its beginning, after a safe state has ended."""
        if self._now is not None:
            self._next, self._now = self._now.index, None
        self._waiting.clear()
        self._refused = ""
        inner = getattr(self._inner, "released", None)
        if inner is not None:
            inner()

    def update(self, tracks: Tracks) -> list[Command]:
        """Continue the slice, or begin the next one."""
        if self._over:
            return []
        info = tracks.info
        if self._refused:
            return self._stop(f"{self._place()} cannot be measured: {self._refused}")
        if self._now is None:
            return self._begin(info.time_s)
        if self._waiting:
            if info.time_s - self._sent_s > LONGEST_WAIT_S:
                return self._stop(f"{self._place()}: no reply from the microscope for {LONGEST_WAIT_S:g} s")
            return []
        if info.frame < self._from_frame:
            return []
        if math.isnan(self._arrived_s):
            self._arrived_s = info.time_s
        commands = list(self._inner.update(tracks)) if self._inner is not None else []
        if info.time_s - self._arrived_s < self._now.step.settle_s:
            return commands
        if self._first_frame < 0:
            self._first_frame, self._first_s, self._tracked = info.frame, info.time_s, 0
            self._tell("begins", {"first_frame": info.frame})
        self._tracked += 1
        if self._is_measured(tracks):
            self._end(tracks)
            commands += self._begin(info.time_s)
        return commands

    def _begin(self, now_s: float) -> list[Command]:
        if self._next >= len(self._slices):
            return self._stop("the protocol is complete")
        self._now = now = self._slices[self._next]
        self._next += 1
        until = now.step.until
        self._sufficiency = Sufficiency(until) if until is not None else None
        self._first_frame = self._from_frame = -1
        self._arrived_s, self._sent_s = math.nan, now_s
        commands = []
        if now.focus_um is not None:
            commands.append(Command(CommandKind.MOVE_FOCUS, now.focus_um))
        if now.flow_ul_s is not None:
            commands.append(Command(CommandKind.SET_FLOW, now.flow_ul_s))
        self._prepare_inner(now)
        self._waiting = {command.command_id for command in commands}
        return commands

    def _prepare_inner(self, now: Slice) -> None:
        restart, retarget = (getattr(self._inner, name, None) for name in ("restart", "retarget"))
        if now.focus_um is not None and restart is not None:
            restart()
        if now.step.target is not None and retarget is not None:
            retarget(now.step.target)

    def _is_measured(self, tracks: Tracks) -> bool:
        assert self._now is not None
        step, info = self._now.step, tracks.info
        if self._sufficiency is not None:
            return self._sufficiency.update(tracks)
        if step.frames is not None:
            return info.frame - self._first_frame + 1 >= step.frames
        return step.seconds is not None and info.time_s - self._first_s >= step.seconds - 1e-9

    def _end(self, tracks: Tracks) -> None:
        info = tracks.info
        facts: dict[str, Any] = {
            "first_frame": self._first_frame,
            "last_frame": info.frame,
            "tracked_frames": self._tracked,
            "seconds": round(info.time_s - self._first_s, 6),
        }
        if self._sufficiency is not None:
            facts |= {
                "reached": self._sufficiency.reached,
                "trajectories": self._sufficiency.trajectories,
                "standard_error_um_s": self._sufficiency.standard_error_um_s,
                **{f"{name}_percent": value for name, value in self._sufficiency.flow_percent.items()},
            }
        self._tell("is measured", facts)
        self._now = None

    def _tell(self, what: str, facts: dict[str, Any]) -> None:
        assert self._now is not None
        done = what == "is measured"
        own = self._now.facts() | facts | {"done": done, "of": len(self._slices)}
        self._happenings.append(Happening("slice", f"{self._place()} {what}", own))

    def _place(self) -> str:
        index = self._now.index if self._now is not None else self._next
        return f"slice {index + 1} of {len(self._slices)}"

    def _stop(self, reason: str) -> list[Command]:
        self._over = True
        return [Command(CommandKind.STOP, reason)]
