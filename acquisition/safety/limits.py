"""Checks commands against the limits of the experiment (pure functions), and limits their rate."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from acquisition.settings import LimitsSettings
from stream.messages import Command, CommandKind


class CommandRefused(Exception):  # noqa: N818 - not an error: the answer to a command
    """A command is not carried out; the text is the reason in the answer."""


def number(command: Command) -> float:
    """The command's value as a finite number, or `CommandRefused`."""
    value = command.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CommandRefused(f"{command.kind} needs a number, not {value!r}")
    if not math.isfinite(value):
        raise CommandRefused(f"{command.kind} needs a finite number, not {value!r}")
    return float(value)


def switch(command: Command) -> bool:
    """The command's value as open (1) or closed (0), or `CommandRefused`."""
    value = number(command)
    if value not in {0.0, 1.0}:
        raise CommandRefused(f"{command.kind} needs 1 (open) or 0 (closed), not {value:g}")
    return value == 1.0


def check_focus(limits: LimitsSettings, target_um: float, from_um: float) -> None:
    """Refuse a focus position outside the limits, or too far from the present one."""
    if limits.min_focus_um is None or limits.max_focus_um is None:
        raise CommandRefused(
            "the focus cannot be moved without limits; set limits.min_focus_um and limits.max_focus_um"
        )
    if not limits.min_focus_um <= target_um <= limits.max_focus_um:
        raise CommandRefused(
            f"focus {target_um:g} um is outside the limits {limits.min_focus_um:g} to {limits.max_focus_um:g} um"
        )
    step_um = abs(target_um - from_um)
    if limits.max_focus_step_um is not None and step_um > limits.max_focus_step_um:
        raise CommandRefused(
            f"a step of {step_um:g} um exceeds limits.max_focus_step_um ({limits.max_focus_step_um:g} um)"
        )


def check_flow(limits: LimitsSettings, flow_ul_s: float) -> None:
    """Refuse a flow outside the limits."""
    if limits.max_flow_ul_s is None:
        raise CommandRefused("the flow cannot be changed without a limit; set limits.max_flow_ul_s")
    if not limits.min_flow_ul_s <= flow_ul_s <= limits.max_flow_ul_s:
        raise CommandRefused(
            f"flow {flow_ul_s:g} uL/s is outside the limits {limits.min_flow_ul_s:g} to "
            f"{limits.max_flow_ul_s:g} uL/s"
        )


def check_exposure(limits: LimitsSettings, exposure_ms: float) -> None:
    """Refuse an exposure outside the limits."""
    if not limits.min_exposure_ms <= exposure_ms <= limits.max_exposure_ms:
        raise CommandRefused(
            f"exposure {exposure_ms:g} ms is outside the limits {limits.min_exposure_ms:g} to "
            f"{limits.max_exposure_ms:g} ms"
        )


def check_property(limits: LimitsSettings, command: Command) -> None:
    """Refuse a property that is not listed in `limits.properties`."""
    name = f"{command.device}.{command.property}"
    if name not in limits.properties:
        raise CommandRefused(f"{name} may not be set by commands; add it to limits.properties")
    if command.value is None or (isinstance(command.value, float) and not math.isfinite(command.value)):
        raise CommandRefused(f"{name} needs a value, not {command.value!r}")


class RateLimit:
    """Allows at most `per_s` commands per second, or one in `1 / per_s` seconds if that is longer."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = max(1, int(per_s))
        self._window_s = self._burst / per_s
        self._clock = clock
        self._taken_s: deque[float] = deque()

    def check(self, kind: CommandKind) -> None:
        """Count a command, or refuse it."""
        now_s = self._clock()
        while self._taken_s and now_s - self._taken_s[0] >= self._window_s:
            self._taken_s.popleft()
        if len(self._taken_s) >= self._burst:
            raise CommandRefused(
                f"{kind}: more than {self._per_s:g} commands per second (limits.commands_per_s)"
            )
        self._taken_s.append(now_s)
