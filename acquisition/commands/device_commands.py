"""What each kind of command does to the devices, within the limits of the experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from acquisition.microscope.microscope import Microscope
from acquisition.safety.limits import (
    CommandRefused,
    check_exposure,
    check_flow,
    check_focus,
    check_property,
    number,
    switch,
)
from acquisition.settings import LimitsSettings
from stream.messages import Command, CommandKind


class SteeredFocus(Protocol):
    """What commands move: the focus drive, or the volumes that it scans."""

    focus_commanded_um: float

    @property
    def rested_ns(self) -> int:
        """Since when what is exposed shows the last move (`perf_counter_ns`), once it is over; 0: not known."""
        ...

    def move_focus(self, position_um: float) -> None:
        """Start a move, without waiting. Raises `CommandRefused` outside the limits, `SourceError` on failure."""
        ...

    def focus_moves(self) -> bool:
        """Whether it still moves."""
        ...


class DeviceCommands:
    """Carries out commands on a microscope at once.

    `actions` are the functions by kind of command. They raise `CommandRefused` for a command that is outside the
    limits or for a device that this microscope lacks, `SourceError` where a device fails.
    """

    def __init__(
        self, microscope: Microscope, limits: LimitsSettings, focus: SteeredFocus | None = None
    ) -> None:
        """`focus` is moved in place of the microscope's drive."""
        self._scope = microscope
        self._focus: SteeredFocus = microscope if focus is None else focus
        self._limits = limits
        self.actions: Mapping[CommandKind, Callable[[Command], None]] = {
            CommandKind.SET_PROPERTY: self._set_property,
            CommandKind.MOVE_FOCUS: self._move_focus,
            CommandKind.NEXT_SLICE: self._next_slice,
            CommandKind.SET_FLOW: self._set_flow,
            CommandKind.SET_EXPOSURE: self._set_exposure,
            CommandKind.SET_SHUTTER: self._set_shutter,
            CommandKind.TRIGGER: self._trigger,
        }

    def _set_property(self, command: Command) -> None:
        check_property(self._limits, command)
        self._refuse_bypass(command)
        self._scope.check_property(command.device, command.property)
        assert command.value is not None
        self._scope.set_property(command.device, command.property, command.value)

    def _refuse_bypass(self, command: Command) -> None:
        """Refuse a property that has its own command and limits, whatever `limits.properties` contains."""
        scope = self._scope
        bypasses = {
            (scope.pump, scope.settings.pump_property): CommandKind.SET_FLOW,
            (scope.camera, "Exposure"): CommandKind.SET_EXPOSURE,
            (scope.focus, "Position"): CommandKind.MOVE_FOCUS,
        }
        kind = bypasses.get((command.device, command.property))
        if kind is not None:
            raise CommandRefused(f"{command.device}.{command.property} has its own limits; send {kind}")

    def _move_focus(self, command: Command) -> None:
        self._move_to(number(command))

    def _next_slice(self, command: Command) -> None:
        self._move_to(self._focus.focus_commanded_um + number(command))

    def _move_to(self, target_um: float) -> None:
        if not self._scope.focus:
            raise CommandRefused("this microscope has no focus drive; set microscope.focus")
        check_focus(self._limits, target_um, self._focus.focus_commanded_um)
        self._focus.move_focus(target_um)

    def _set_flow(self, command: Command) -> None:
        if not self._scope.pump:
            raise CommandRefused(
                "this microscope has no pump; set microscope.pump and microscope.pump_property"
            )
        flow_ul_s = number(command)
        check_flow(self._limits, flow_ul_s)
        self._scope.set_flow(flow_ul_s)

    def _set_exposure(self, command: Command) -> None:
        exposure_ms = number(command)
        check_exposure(self._limits, exposure_ms)
        self._scope.set_exposure(exposure_ms)

    def _set_shutter(self, command: Command) -> None:
        if not self._scope.shutter:
            raise CommandRefused("this microscope has no shutter; set microscope.shutter")
        self._scope.set_shutter(switch(command))

    def _trigger(self, _command: Command) -> None:
        device, _, name = (self._scope.settings.trigger or "").partition(".")
        if not name:
            raise CommandRefused('this microscope has no trigger; set microscope.trigger = "Device.Property"')
        self._scope.check_property(device, name)
        self._scope.set_property(device, name, 1)
        self._scope.set_property(device, name, 0)
