"""Builds the control stage: tracks -> commands to the microscope."""

from __future__ import annotations

from typing import TYPE_CHECKING

from liveptv.session.plan import RECORD_REQUESTS
from liveptv.session.stage_context import StageContext
from stream.errors import ConfigurationError
from stream.stage import Stage

if TYPE_CHECKING:
    from acquisition.recorder.settings import RecordSettings
    from liveptv.config import Experiment
    from tracking.control.record_conditions import Condition
    from tracking.physics.live.follower import FlowFollower

from liveptv.session.builders.slots import LOOPBACK


def build_control(context: StageContext) -> Stage:
    """Tracks -> commands to the microscope; a controller can be switched on later."""
    from stream.commands import CommandClient, CommandServer
    from tracking.control.controllers import load_controller
    from tracking.control.routed_commands import RoutedCommands
    from tracking.control.stage import WOKEN_POLL_S, ControlStage
    from tracking.control.switch import ControllerSwitch

    experiment = context.plan.experiment
    if not experiment.needs_control_stage:
        raise ConfigurationError("a control stage needs a microscope to steer; a recording has none")
    controller, watchdog_s = None, experiment.limits.watchdog_s
    if experiment.is_controlled:
        controller = load_controller(experiment.controller, experiment.protocol, watchdog_s)
    requests = CommandServer(LOOPBACK, context.plan.keys.curve)
    context.stack.callback(requests.close)
    context.bound["requests"] = requests.address
    addresses, curve = context.peers().addresses, context.plan.keys.curve
    client = CommandClient(addresses["commands"], curve)
    context.stack.callback(client.close)
    recorder = CommandClient(addresses[RECORD_REQUESTS], curve) if RECORD_REQUESTS in addresses else None
    commands = RoutedCommands(client, recorder)
    context.stack.callback(commands.close)
    switch = ControllerSwitch(
        requests,
        experiment.controller,
        watchdog_s,
        has_flow=experiment.follows_flow,
        has_viscosity=experiment.viscosity_mpa_s is not None,
    )
    upstream = context.upstream(*(one.socket for one in (client, recorder) if one is not None))
    return ControlStage(
        upstream,
        controller,
        commands,
        context.say,
        context.record,
        switch,
        WOKEN_POLL_S,
        record_conditions(experiment.record) if recorder is not None else (),
        has_effect=experiment.microscope is not None,
        flow=flow_follower(experiment),
    )


def flow_follower(experiment: Experiment, *, in_thread: bool = True) -> FlowFollower | None:
    """What fits the flow during the run; None where it is not fitted."""
    channel = experiment.channel
    if channel is None or not experiment.follows_flow:
        return None
    from liveptv.flow_fit.run_settings import PA_S_PER_MPA_S
    from tracking.physics.live.follower import FlowFollower

    section = experiment.flow.section_or(channel.width_um, channel.depth_um)
    factor, viscosity = experiment.optics.refraction_factor, experiment.viscosity_mpa_s
    return FlowFollower(
        section,
        experiment.flow.prior(section, factor * channel.floor_um, channel.center_y_um),
        viscosity_pa_s=None if viscosity is None else PA_S_PER_MPA_S * viscosity,
        refraction_factor=factor,
        memory_s=experiment.flow.forgets_s,
        settle_s=experiment.flow.settle_s,
        in_thread=in_thread,
    )


def record_conditions(settings: RecordSettings) -> list[Condition]:
    """The conditions of `[record.on]` that are judged on the tracks of each frame."""
    from tracking.control.record_conditions import Band, ParticleEnters, Region, VelocityLeaves

    found: list[Condition] = []
    if (region := settings.on.particle_enters) is not None:
        found.append(
            ParticleEnters(
                Region(region.edges_um, region.min_track_frames, region.kind, region.min_p_kind, region)
            )
        )
    if (band := settings.on.velocity_leaves) is not None:
        found.append(VelocityLeaves(Band(**band.model_dump()), settings.after_s))
    return found
