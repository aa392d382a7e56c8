"""Controllers: from live tracks to commands for the microscope; built in, or a Python file of the user's."""

from __future__ import annotations

from tracking.controllers.hold_flow import HoldFlow
from tracking.controllers.loading import controller_from_file, where_it_failed
from tracking.controllers.protocol import Controller
from tracking.controllers.stop_when import StopWhen
from tracking.settings import ControllerSettings

__all__ = ["Controller", "HoldFlow", "StopWhen", "controller_from_file", "load_controller", "where_it_failed"]


def load_controller(settings: ControllerSettings) -> Controller:
    """Make the controller that the settings name; `ConfigurationError` if its file is not usable."""
    if settings.hold_flow is not None:
        return HoldFlow(settings.hold_flow)
    if settings.stop_when is not None:
        return StopWhen(settings.stop_when)
    assert settings.file is not None
    return controller_from_file(settings.file, settings.options)
