"""Whether devices are in their safe state, as plain data that needs no devices."""

from __future__ import annotations

from dataclasses import dataclass

from acquisition.settings import LimitsSettings


@dataclass(frozen=True, slots=True)
class DeviceSafety:
    """One device: its safe `state` in words, whether it is in that state, and if not, why."""

    device: str
    state: str
    safe: bool
    problem: str = ""
    warning: str = ""

    def __str__(self) -> str:
        return self.state if self.safe else f"{self.warning} ({self.problem})"


def has_safe_state(limits: LimitsSettings, shutter: str | None) -> bool:
    """Whether any device has a safe state."""
    return limits.safe_flow_ul_s is not None or limits.safe_focus_um is not None or bool(shutter)
