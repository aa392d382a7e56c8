"""What is known of the hardware's safety; kept apart from the devices, so that anybody may speak of it."""

from __future__ import annotations

from dataclasses import dataclass

from acquisition.settings import LimitsSettings


@dataclass(frozen=True, slots=True)
class DeviceSafety:
    """What is known of one device: its safe `state` in words, whether it is in it, and if not, why."""

    device: str
    state: str
    safe: bool
    problem: str = ""
    warning: str = ""

    def __str__(self) -> str:
        return self.state if self.safe else f"{self.warning} ({self.problem})"


def has_safe_state(limits: LimitsSettings, shutter: str | None) -> bool:
    """Whether there is anything to make safe."""
    return limits.safe_flow_ul_s is not None or limits.safe_focus_um is not None or bool(shutter)
