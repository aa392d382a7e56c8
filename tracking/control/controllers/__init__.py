"""Controllers, which turn live tracks into commands for the microscope: built-in ones, or a user's Python file."""

from __future__ import annotations

import math

from tracking.control.controllers.controller_interface import Controller, Happening
from tracking.control.controllers.hold_flow import HoldFlow
from tracking.control.controllers.hold_focus import HoldFocus
from tracking.control.controllers.loading import controller_from_file
from tracking.control.controllers.protocol_run import ProtocolRun, until_enough
from tracking.control.controllers.pulse_on_entry import PulseOnEntry
from tracking.control.controllers.stop_when import StopWhen
from tracking.control.protocol_settings import ProtocolSettings
from tracking.control.settings import ControllerSettings

__all__ = [
    "Controller",
    "Happening",
    "HoldFlow",
    "HoldFocus",
    "ProtocolRun",
    "PulseOnEntry",
    "StopWhen",
    "controller_from_file",
    "load_controller",
    "until_enough",
]


def load_controller(
    settings: ControllerSettings | None,
    protocol: ProtocolSettings | None = None,
    watchdog_s: float = math.inf,
) -> Controller:
    """Make the controller of these settings, inside the protocol if there is one.

    `watchdog_s` is `limits.watchdog_s`. Raises `ConfigurationError` if its file is not usable, or if it would act
    on results as old as that.
    """
    controller = None if settings is None else _made(settings, watchdog_s)
    if protocol is not None:
        return ProtocolRun(protocol, controller)
    assert controller is not None
    return controller


def _made(settings: ControllerSettings, watchdog_s: float) -> Controller:
    if settings.hold_flow is not None:
        return HoldFlow(settings.hold_flow, watchdog_s)
    if settings.hold_flow_rate is not None or settings.hold_shear is not None:
        from tracking.control.controllers.hold_fitted import HoldFlowRate, HoldShear  # 0.3 s, for the fit

        if settings.hold_flow_rate is not None:
            return HoldFlowRate(settings.hold_flow_rate, watchdog_s)
        assert settings.hold_shear is not None
        return HoldShear(settings.hold_shear, watchdog_s)
    if settings.hold_focus is not None:
        return HoldFocus(settings.hold_focus, watchdog_s)
    if settings.until_enough is not None:
        return until_enough(settings.until_enough)
    if settings.pulse_on_entry is not None:
        return PulseOnEntry(settings.pulse_on_entry)
    if settings.stop_when is not None:
        return StopWhen(settings.stop_when)
    assert settings.file is not None
    return controller_from_file(settings.file, settings.options)
