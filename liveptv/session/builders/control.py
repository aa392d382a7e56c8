"""Builds the control stage: tracks -> commands to the microscope."""

from __future__ import annotations

from typing import TYPE_CHECKING

from liveptv.session.stage_context import StageContext
from stream.errors import ConfigurationError
from stream.stage import Stage

if TYPE_CHECKING:
    pass

from liveptv.session.builders.slots import LOOPBACK


def build_control(context: StageContext) -> Stage:
    """Tracks -> commands to the microscope; a controller can be switched on later."""
    from stream.commands import CommandClient, CommandServer
    from tracking.control.controllers import load_controller
    from tracking.control.stage import WOKEN_POLL_S, ControlStage
    from tracking.control.switch import ControllerSwitch

    experiment = context.plan.experiment
    if not experiment.can_be_controlled:
        raise ConfigurationError("a control stage needs a microscope to steer; a recording has none")
    controller, watchdog_s = None, experiment.limits.watchdog_s
    if experiment.is_controlled:
        controller = load_controller(experiment.controller, experiment.protocol, watchdog_s)
    requests = CommandServer(LOOPBACK, context.plan.keys.curve)
    context.stack.callback(requests.close)
    context.bound["requests"] = requests.address
    client = CommandClient(context.peers().addresses["commands"], context.plan.keys.curve)
    context.stack.callback(client.close)
    switch = ControllerSwitch(requests, experiment.controller, watchdog_s)
    upstream = context.upstream(client.socket)
    return ControlStage(
        upstream,
        controller,
        client,
        context.say,
        context.record,
        switch,
        WOKEN_POLL_S,
        has_effect=experiment.microscope is not None,
    )
