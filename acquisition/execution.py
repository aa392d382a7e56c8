"""Carries out commands on the microscope, within limits, and says from which frame on they took effect."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from acquisition.limits import (
    RateLimit,
    Refused,
    check_exposure,
    check_flow,
    check_focus,
    check_property,
    number,
    switch,
)
from acquisition.live import MicroscopeStream
from acquisition.microscope import Microscope
from acquisition.settings import LimitsSettings
from stream.errors import ConfigurationError, SourceError
from stream.messages import Ack, Command, CommandKind, Frame

FOCUS_TIMEOUT_S = 30.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pending:
    """A command that was carried out and waits for the first frame it shows in."""

    command: Command
    begun_s: float
    effective_ns: int | None


class CommandExecutor:
    """Executes commands between frames; whatever they ask for, the hardware stays within the limits.

    A command is acknowledged by the first frame whose exposure began after the device had taken it (the focus
    drive: had arrived); frames that waited in the camera's buffer meanwhile are not named. With
    `limits.watchdog_s`, silence after a first command brings the safe state.
    """

    def __init__(
        self,
        microscope: Microscope,
        stream: MicroscopeStream,
        limits: LimitsSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises `ConfigurationError` where the limits promise a safety that this microscope cannot give."""
        if limits.safe_flow_ul_s is not None and not microscope.pump:
            raise ConfigurationError(
                "limits.safe_flow_ul_s is set, but no pump was found; set microscope.pump and "
                "microscope.pump_property"
            )
        if limits.watchdog_s is not None and limits.safe_flow_ul_s is None and not microscope.shutter:
            raise ConfigurationError(
                "limits.watchdog_s has nothing to make safe; set limits.safe_flow_ul_s or microscope.shutter"
            )
        self._scope = microscope
        self._stream = stream
        self._limits = limits
        self._clock = clock
        self._rate = RateLimit(limits.commands_per_s, clock)
        self._pending: list[_Pending] = []
        self._heard_s: float | None = None
        self._actions: dict[CommandKind, Callable[[Command], None]] = {
            CommandKind.SET_PROPERTY: self._set_property,
            CommandKind.MOVE_FOCUS: self._move_focus,
            CommandKind.NEXT_SLICE: self._next_slice,
            CommandKind.SET_FLOW: self._set_flow,
            CommandKind.SET_EXPOSURE: self._set_exposure,
            CommandKind.SET_SHUTTER: self._set_shutter,
            CommandKind.TRIGGER: self._trigger,
        }
        self._counts = {"commands": 0, "commands_refused": 0, "watchdog": 0}

    def execute(self, command: Command) -> Ack | None:
        """Carry a command out; returns the refusal, or None where the answer follows with a frame."""
        self._counts["commands"] += 1
        try:
            self._rate.check(command.kind)
            action = self._actions.get(command.kind)
            if action is None:
                raise Refused(f"{command.kind} is not for the microscope")
            action(command)
        except (Refused, SourceError, ConfigurationError) as error:
            self._counts["commands_refused"] += 1
            return self._ack(command, str(error))
        self._heard_s = self._clock()
        changed_ns = self._stream.devices_changed()
        moves = command.kind in {CommandKind.MOVE_FOCUS, CommandKind.NEXT_SLICE}
        self._pending.append(_Pending(command, self._clock(), None if moves else changed_ns))
        return None

    def _set_property(self, command: Command) -> None:
        check_property(self._limits, command)
        self._refuse_detour(command)
        self._scope.check_property(command.device, command.property)
        assert command.value is not None
        self._scope.set_property(command.device, command.property, command.value)

    def _refuse_detour(self, command: Command) -> None:
        """What has limits of its own is not set as a property, whatever `limits.properties` says."""
        scope = self._scope
        detours = {
            (scope.pump, scope.settings.pump_property): CommandKind.SET_FLOW,
            (scope.camera, "Exposure"): CommandKind.SET_EXPOSURE,
            (scope.focus, "Position"): CommandKind.MOVE_FOCUS,
        }
        kind = detours.get((command.device, command.property))
        if kind is not None:
            raise Refused(f"{command.device}.{command.property} has limits of its own; send {kind}")

    def _move_focus(self, command: Command) -> None:
        self._move_to(number(command))

    def _next_slice(self, command: Command) -> None:
        self._move_to(self._scope.focus_commanded_um + number(command))

    def _move_to(self, target_um: float) -> None:
        if not self._scope.focus:
            raise Refused("this microscope has no focus drive; set microscope.focus")
        check_focus(self._limits, target_um, self._scope.focus_commanded_um)
        self._scope.move_focus(target_um)

    def _set_flow(self, command: Command) -> None:
        if not self._scope.pump:
            raise Refused("this microscope has no pump; set microscope.pump and microscope.pump_property")
        flow_ul_s = number(command)
        check_flow(self._limits, flow_ul_s)
        self._scope.set_flow(flow_ul_s)

    def _set_exposure(self, command: Command) -> None:
        exposure_ms = number(command)
        check_exposure(self._limits, exposure_ms)
        self._scope.set_exposure(exposure_ms)

    def _set_shutter(self, command: Command) -> None:
        if not self._scope.shutter:
            raise Refused("this microscope has no shutter; set microscope.shutter")
        self._scope.set_shutter(switch(command))

    def _trigger(self, _command: Command) -> None:
        device, _, name = (self._scope.settings.trigger or "").partition(".")
        if not name:
            raise Refused('this microscope has no trigger; set microscope.trigger = "Device.Property"')
        self._scope.check_property(device, name)
        self._scope.set_property(device, name, 1)
        self._scope.set_property(device, name, 0)

    def poll(self) -> list[Ack]:
        """Look after moves under way and the watchdog; returns answers to moves that failed."""
        answers: list[Ack] = []
        for pending in [p for p in self._pending if p.effective_ns is None]:
            try:
                if not self._scope.focus_moves():
                    pending.effective_ns = self._stream.devices_changed()
                    continue
                late = self._clock() - pending.begun_s > FOCUS_TIMEOUT_S
                why = f"the focus still moves after {FOCUS_TIMEOUT_S:g} s; is it blocked?" if late else ""
            except SourceError as error:
                why = str(error)
            if why:
                self._pending.remove(pending)
                answers.append(self._ack(pending.command, why))
        self._watch()
        return answers

    def _watch(self) -> None:
        limit_s = self._limits.watchdog_s
        if limit_s is None or self._heard_s is None or self._clock() - self._heard_s <= limit_s:
            return
        self._heard_s = None
        self._counts["watchdog"] += 1
        log.warning("no command for %g s: pump and shutter go to their safe state", limit_s)
        self.safe_state()
        self._stream.devices_changed()

    def frame_taken(self, frame: Frame) -> list[Ack]:
        """Answers to the commands that this frame is the first to show."""
        shown = [
            p
            for p in self._pending
            if p.effective_ns is not None and self._stream.exposed_ns >= p.effective_ns
        ]
        self._pending = [p for p in self._pending if p not in shown]
        return [self._ack(p.command, "", frame.info.frame) for p in shown]

    def abandon(self) -> list[Ack]:
        """Answers to the commands that no frame will show any more."""
        left, self._pending = self._pending, []
        return [Ack(p.command.command_id, True, -1, "no frame was taken after it", _now()) for p in left]

    def safe_state(self) -> None:
        """Set the pump to its safe flow and close the shutter, where there are such.

        Both are tried. Raises `SourceError` if one does not obey.
        """
        scope, problems = self._scope, []
        safe_flow_ul_s = self._limits.safe_flow_ul_s
        if safe_flow_ul_s is not None:
            problems += _problem(lambda: scope.set_flow(safe_flow_ul_s))
        if scope.shutter:
            problems += _problem(lambda: scope.set_shutter(False))
        if problems:
            raise SourceError("; ".join(problems))

    def counts(self) -> dict[str, int]:
        """Totals of `commands`, `commands_refused`, and how often the `watchdog` had to act."""
        return dict(self._counts)

    @staticmethod
    def _ack(command: Command, why_not: str, first_frame: int = -1) -> Ack:
        return Ack(command.command_id, not why_not, first_frame, why_not, _now())


def _now() -> int:
    return time.perf_counter_ns()


def _problem(action: Callable[[], None]) -> list[str]:
    try:
        action()
    except SourceError as error:
        return [str(error)]
    return []
