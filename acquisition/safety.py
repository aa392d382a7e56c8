"""The safe state of the hardware, and the watchdog that brings it about when live results stay away."""

from __future__ import annotations

import time
from collections.abc import Callable

from acquisition.microscope import Microscope
from acquisition.settings import LimitsSettings
from stream.errors import ConfigurationError, SourceError


class SafeState:
    """Pump at `limits.safe_flow_ul_s`, focus at `limits.safe_focus_um`, shutter closed, where there are such."""

    def __init__(self, microscope: Microscope, limits: LimitsSettings) -> None:
        """Raises `ConfigurationError` where the limits promise a safety that this microscope cannot give."""
        if limits.safe_flow_ul_s is not None and not microscope.pump:
            raise ConfigurationError(
                "limits.safe_flow_ul_s is set, but no pump was found; set microscope.pump and "
                "microscope.pump_property"
            )
        if limits.safe_focus_um is not None and not microscope.focus:
            raise ConfigurationError(
                "limits.safe_focus_um is set, but no focus drive was found; set microscope.focus"
            )
        self._scope = microscope
        self._limits = limits
        if "watchdog_s" in limits.model_fields_set and not self.parts:
            raise ConfigurationError(
                "limits.watchdog_s has nothing to make safe; set limits.safe_flow_ul_s, limits.safe_focus_um "
                "or microscope.shutter"
            )

    @property
    def parts(self) -> list[str]:
        """What the safe state is, a phrase a device."""
        limits, parts = self._limits, []
        if limits.safe_flow_ul_s is not None:
            parts.append(f"the pump at {limits.safe_flow_ul_s:g} uL/s")
        if self._scope.shutter:
            parts.append("the shutter closed")
        if limits.safe_focus_um is not None:
            parts.append(f"the focus at {limits.safe_focus_um:g} um")
        return parts

    def __str__(self) -> str:
        return ", ".join(self.parts) or "nothing, for none is configured"

    def enter(self) -> None:
        """Bring every device into its safe state. All are tried; raises `SourceError` if one does not obey."""
        scope, limits, problems = self._scope, self._limits, []
        flow_ul_s, focus_um = limits.safe_flow_ul_s, limits.safe_focus_um
        if flow_ul_s is not None:
            problems += _problem(lambda: scope.set_flow(flow_ul_s))
        if scope.shutter:
            problems += _problem(lambda: scope.set_shutter(False))
        if focus_um is not None:
            problems += _problem(lambda: scope.move_focus(focus_um))
        if problems:
            raise SourceError("; ".join(problems))


class Watchdog:
    """Armed by the first live result; expires once when none has come for `limit_s`, until the next one."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._heard_s: float | None = None

    def heard(self) -> None:
        """A live result has been looked at."""
        self._heard_s = self._clock()

    def disarm(self) -> None:
        """The safe state was entered for another reason."""
        self._heard_s = None

    def expired(self) -> bool:
        """Whether it is time to act; True once."""
        if self._heard_s is None or self._clock() - self._heard_s <= self.limit_s:
            return False
        self._heard_s = None
        return True


def _problem(action: Callable[[], None]) -> list[str]:
    try:
        action()
    except SourceError as error:
        return [str(error)]
    return []
