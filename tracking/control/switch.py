"""Switches controllers on and off during a run; requests are validated like the experiment file.

A request is a `Command` of kind `control`. Its value is a JSON object with one entry of `[controller]`, such as
`{"hold_flow": {"target_um_s": 75, "max_flow_ul_s": 0.1}}`; an empty one switches the controller off.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from stream.commands import Request
from stream.errors import ConfigurationError
from stream.messages import Command, CommandKind
from stream.settings import describe
from tracking.control.controllers import Controller, load_controller
from tracking.control.settings import KINDS, ControllerSettings


class Requests(Protocol):
    """Where requests come from: `stream.commands.CommandServer`."""

    def poll(self) -> list[Request]:
        """Return the commands that have come, without waiting."""
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """A controller with its key in `[controller]` and its settings; `controller` is None to have none."""

    controller: Controller | None
    kind: str = ""
    settings: dict[str, Any] | None = None

    def __str__(self) -> str:
        if self.controller is None:
            return "no controller"
        given = ", ".join(f"{key} = {value}" for key, value in (self.settings or {}).items())
        return f"{self.kind} ({given})" if given else self.kind


class ControllerSwitch:
    """Makes the requested controllers. No code is loaded on request: a `file` must be the experiment's own."""

    def __init__(
        self,
        requests: Requests,
        own: ControllerSettings | None = None,
        watchdog_s: float = math.inf,
        *,
        has_flow: bool = False,
        has_viscosity: bool = False,
    ) -> None:
        """`has_flow`: whether the run fits the flow, `has_viscosity`: and knows the liquid's viscosity."""
        self._requests = requests
        self._has_flow, self._has_viscosity = has_flow, has_viscosity
        self._watchdog_s = watchdog_s
        self._own_file = None if own is None else own.file

    def poll(self) -> list[Request]:
        """Return the requests that have come, without waiting."""
        return self._requests.poll()

    def choose(self, command: Command) -> Choice:
        """Make the controller of a request.

        Raises `ConfigurationError` if the request or its settings are not valid.
        """
        if command.kind is not CommandKind.CONTROL:
            raise ConfigurationError(
                f"the control stage only switches controllers; send {command.kind} to the acquisition"
            )
        try:
            wanted = json.loads(str(command.value or "{}"))
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(
                f"the request for a controller is not valid JSON: {command.value!r}"
            ) from error
        if wanted == {}:
            return Choice(None)
        try:
            settings = ControllerSettings.model_validate(wanted)
        except ValidationError as error:
            raise ConfigurationError(describe(error)) from error
        kind = next(name for name in KINDS if getattr(settings, name) is not None)
        if settings.needs_flow and not self._has_flow:
            raise ConfigurationError(
                f"{settings.needs_flow} needs the fit of the flow, and this experiment has no [channel]"
            )
        if settings.needs_viscosity and not self._has_viscosity:
            raise ConfigurationError(
                f"{settings.needs_viscosity} needs the viscosity, and this experiment has no flow.viscosity_mpa_s"
            )
        if settings.file is not None and not self._is_own(settings.file):
            raise ConfigurationError(
                f"only the experiment's own controller file can be switched on, not {settings.file}"
            )
        try:
            controller = load_controller(settings, watchdog_s=self._watchdog_s)
        except ConfigurationError:
            raise
        except (ValueError, ArithmeticError) as error:
            raise ConfigurationError(f"{kind} cannot be made with these settings: {error}") from error
        given = wanted.get("options", {}) if kind == "file" else wanted[kind]
        return Choice(controller, kind, dict(given))

    def _is_own(self, file: Path) -> bool:
        return self._own_file is not None and Path(file) == Path(self._own_file)
