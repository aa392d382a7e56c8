"""The safe state of the hardware: entered device by device and confirmed by reading back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from acquisition.microscope.device_calls import DeviceCalls
from acquisition.microscope.microscope import Actuators
from acquisition.safety.hardware_state import DeviceSafety
from acquisition.settings import LimitsSettings
from stream.errors import ConfigurationError, SourceError

DEVICE_S = 2.0  # s for a command: most devices take ms, serial ones with retries less than this
CONFIRM_S = 3.0  # s of reading back: shutters and pumps are done by then
TRAVEL_S = 10.0  # s of reading back the focus, which may have to cross its range
READ_AGAIN_S = 0.02  # s between two readings
FLOW_TOLERANCE_UL_S = 5e-4  # uL/s: adapters round a set-point to three decimals
FLOW_TOLERANCE = (
    0.01  # and a fraction of it, for pumps that count in steps; a running pump is off by far more
)
FOCUS_TOLERANCE_UM = 1.0  # um: where it is safe, a micrometre does not matter; backlash and drift are below


@dataclass(frozen=True, slots=True)
class _Part:
    """One device: how it enters its safe state, and whether it has."""

    name: str
    state: str
    warning: str
    enter: Callable[[], None]
    arrived: Callable[[], bool]
    confirm_s: float = CONFIRM_S


class SafeState:
    """Pump at `limits.safe_flow_ul_s`, focus at `limits.safe_focus_um`, shutter closed, as far as configured.

    Each device is called in its own thread, so that one that hangs does not prevent the others from becoming safe.
    Methods may be called from any thread.
    """

    def __init__(self, microscope: Actuators, limits: LimitsSettings) -> None:
        """Raises `ConfigurationError` if the limits name a safe state that this microscope cannot enter."""
        if limits.safe_flow_ul_s is not None and not microscope.pump:
            raise ConfigurationError(
                "limits.safe_flow_ul_s is set, but no pump was found; set microscope.pump and "
                "microscope.pump_property"
            )
        if limits.safe_focus_um is not None and not microscope.focus:
            raise ConfigurationError(
                "limits.safe_focus_um is set, but no focus drive was found; set microscope.focus"
            )
        self._calls = DeviceCalls()
        self._parts = _parts(microscope, limits)
        if "watchdog_s" in limits.model_fields_set and not self._parts:
            raise ConfigurationError(
                "limits.watchdog_s has nothing to make safe; set limits.safe_flow_ul_s, limits.safe_focus_um "
                "or microscope.shutter"
            )

    @property
    def parts(self) -> list[str]:
        """The safe state, one phrase per device."""
        return [part.state for part in self._parts]

    def __str__(self) -> str:
        return ", ".join(self.parts) or "no device: none is configured"

    def enter(self) -> None:
        """Bring every device into its safe state. All are tried; raises `SourceError` if one fails."""
        problems = self._calls.run({part.name: part.enter for part in self._parts}, DEVICE_S)
        if any(problems.values()):
            raise SourceError("; ".join(problem for problem in problems.values() if problem))

    def enter_and_confirm(self) -> tuple[DeviceSafety, ...]:
        """Bring every device into its safe state and read it back; returns the result of each. Never raises.

        While the focus travels and is read back, commands to the devices can be sent again.
        """
        told = self._calls.run({part.name: part.enter for part in self._parts}, DEVICE_S)
        there = {_reading(part): _reading_back(part) for part in self._parts if not told[part.name]}
        longest_s = max((part.confirm_s for part in self._parts), default=0.0)
        read = self._calls.run(there, longest_s + DEVICE_S)
        return tuple(
            DeviceSafety(part.name, part.state, not problem, problem, part.warning)
            for part in self._parts
            for problem in (told[part.name] or read[_reading(part)],)
        )


def _parts(scope: Actuators, limits: LimitsSettings) -> tuple[_Part, ...]:
    parts = []
    flow_ul_s, focus_um = limits.safe_flow_ul_s, limits.safe_focus_um
    if flow_ul_s is not None:
        tolerance_ul_s = FLOW_TOLERANCE_UL_S + FLOW_TOLERANCE * abs(flow_ul_s)
        parts.append(
            _Part(
                f"pump {scope.pump}",
                f"the pump at {flow_ul_s:g} uL/s",
                "the pump may still run",
                lambda: scope.set_flow(flow_ul_s),
                lambda: abs(scope.read_flow() - flow_ul_s) <= tolerance_ul_s,
            )
        )
    if scope.shutter:
        parts.append(
            _Part(
                f"shutter {scope.shutter}",
                "the shutter closed",
                "the shutter may still be open",
                lambda: scope.set_shutter(False),
                lambda: not scope.shutter_is_open(),
            )
        )
    if focus_um is not None:
        parts.append(
            _Part(
                f"focus {scope.focus}",
                f"the focus at {focus_um:g} um",
                "the focus may not be at its safe position",
                lambda: scope.move_focus(focus_um),
                lambda: abs(scope.read_focus() - focus_um) <= FOCUS_TOLERANCE_UM,
                TRAVEL_S,
            )
        )
    return tuple(parts)


def _reading(part: _Part) -> str:
    return f"reading {part.name}"


def _reading_back(part: _Part) -> Callable[[], None]:
    def confirm() -> None:
        until_s = time.monotonic() + part.confirm_s
        while not part.arrived():
            if time.monotonic() > until_s:
                raise SourceError(
                    f"{part.name} accepted the command, but reading it back does not confirm it"
                )
            time.sleep(READ_AGAIN_S)

    return confirm
