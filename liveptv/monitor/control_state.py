"""Which controller is on: from the run's configuration, its event log and the status of the control stage."""

from __future__ import annotations

import math
from typing import Any

from stream.messages import StageState, Status
from tracking.control.settings import KINDS

MEASURED = "measured_"
PROTOCOL = "protocol"


class ControlState:
    """Starts with the controller of a run's configuration, and follows each switch."""

    def __init__(self, configuration: dict[str, Any] | None = None) -> None:
        found = configuration or {}
        self._on, self._settings = _configured(found)
        self._steerable = bool(found.get("microscope")) or bool(self._on)

    def happened(self, event: dict[str, Any]) -> None:
        """Take an entry of kind `controller` of the event log; one without `on` reports a failure."""
        if "on" in event:
            self._on = str(event["controller"]) if event["on"] else ""
            self._settings = dict(event.get("settings") or {})

    def facts(self, status: Status | None) -> dict[str, Any] | None:
        """The controller that is `on` ("" if none), its `settings`, whether it `works`, its `measured` values.

        None in a replay, where there is nothing to control.
        """
        if not self._steerable:
            return None
        gauges = {} if status is None else status.gauges
        failed = status is not None and status.state is StageState.FAILED
        return {
            "on": self._on,
            "settings": self._settings,
            "works": not failed and gauges.get("controller_works", 1.0) != 0.0,
            "measured": {
                name.removeprefix(MEASURED): round(value, 5)
                for name, value in gauges.items()
                if name.startswith(MEASURED) and math.isfinite(value)
            },
        }


def _configured(configuration: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The controller that a run starts with, and its settings; "" without one."""
    if configuration.get(PROTOCOL):
        return PROTOCOL, {}
    own = configuration.get("controller") or {}
    for kind in KINDS:
        if own.get(kind) is not None:
            settings = own.get("options") if kind == "file" else own[kind]
            return kind, {key: value for key, value in (settings or {}).items() if value is not None}
    return "", {}
