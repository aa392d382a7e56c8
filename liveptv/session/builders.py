"""Builds each pipeline stage from the experiment. A package is imported only in the process that needs it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from liveptv.session.compilation import noticing_compilation
from liveptv.session.console_window import before_it_closes
from liveptv.session.plan import ImageFormat
from liveptv.session.stage_context import StageContext
from stream.errors import ConfigurationError, LinkError
from stream.messages import Detections, Tracks
from stream.monitor import MonitorPublisher
from stream.stage import Stage

LOOPBACK = "tcp://127.0.0.1:0"


def table_bytes(kind: type[Detections] | type[Tracks], rows: int) -> int:
    """Bytes of a table message with `rows` rows."""
    return len(kind.COLUMNS) * rows * np.dtype(np.float64).itemsize


def track_rows(max_particles: int) -> int:
    """Rows that a message of tracks must hold: one for each detection, and as many predicted rows."""
    return 2 * max_particles


def build_acquire(context: StageContext) -> Stage:
    """Camera or recording -> frames, executing commands in between."""
    from acquisition.stage import AcquireStage
    from liveptv.session.sources import open_source
    from stream.commands import CommandServer

    plan, lane = context.plan, context.lane
    opened = open_source(plan.experiment, plan.run_id, context.say, lane.opening)
    context.stack.callback(opened.close)
    lane.start(opened.executor)
    context.stack.callback(lane.close)
    before_it_closes(lane.close)
    for text in opened.remarks:
        context.record("recording", text, {})
    info = opened.source.info
    context.image_format = ImageFormat(
        info.height,
        info.width,
        info.depth,
        str(info.dtype),
        info.pixel_size_um,
        info.frame_rate_hz,
        info.frames,
        info.description,
    )
    senders = [context.sender(consumer, context.image_format.nbytes) for consumer in plan.consumers]
    commands = CommandServer(LOOPBACK, plan.keys.curve)
    context.stack.callback(commands.close)
    context.bound["commands"] = commands.address
    context.peers()
    opened.source.start()
    stage = AcquireStage(
        opened.source,
        senders,
        commands=commands,
        executor=opened.executor,
        frames=plan.experiment.run.frames,
        seconds=plan.experiment.run.seconds,
        on_end=lane.ended,
    )
    drain_s = plan.experiment.session.stop_timeout_s
    lane.attach(lambda reason, is_orphaned: stage.request_stop(reason, drain_s if is_orphaned else math.inf))
    return stage


def build_detect(context: StageContext) -> Stage:
    """Frames -> detections, with copies for monitors."""
    from engines.engine import Engine
    from engines.factory import check_pixel_size, open_engine, prepare_to_open
    from engines.stage import DetectStage

    plan, settings = context.plan, context.plan.experiment.detector
    (consumer,) = plan.consumers
    sender = context.sender(consumer, table_bytes(Detections, settings.max_particles))
    monitor = MonitorPublisher(
        plan.addresses.get("monitor", plan.experiment.session.monitor),
        run_id=plan.run_id,
        source="liveptv/detect",
        security=plan.keys.monitor(plan.experiment.session.monitor),
    )
    context.stack.callback(monitor.close)
    context.bound["monitor"] = monitor.address
    context.announce()
    with noticing_compilation(context.say_compiling):
        prepare_to_open(settings.model)  # the acquisition is opening the camera meanwhile
    image_format = context.peers().image_format
    if image_format is None:
        raise LinkError("the detector did not get the size of the images")
    if image_format.depth > 1:
        raise ConfigurationError(
            f"the source delivers volumes of {image_format.depth} planes; the classical detector works on images"
        )

    def open_for(pixel_size_um: float) -> Engine:
        engine = open_engine(
            settings,
            model=settings.model,
            pixel_size_um=pixel_size_um,
            say=context.say,
            fit_may_join=plan.experiment.recording
            is None,  # a recording waits: its results are always the same
        )
        context.stack.callback(engine.close)
        with noticing_compilation(context.say_compiling):
            engine.warmup(image_format.height, image_format.width, np.dtype(image_format.dtype))
        return engine

    def reopen(pixel_size_um: float) -> Engine:
        check_pixel_size(settings.model, pixel_size_um)
        context.say(f"detecting with {pixel_size_um:g} um a pixel from now on; all tracks start again")
        return open_for(pixel_size_um)

    engine = open_for(image_format.pixel_size_um)
    info = engine.info
    context.record("engine", f"{info.name} detector on {info.backend} ({info.device})", asdict(info))
    hz = plan.experiment.session.monitor_hz
    return DetectStage(context.upstream(), engine, sender, monitor=monitor, monitor_hz=hz, reopen=reopen)


def build_track(context: StageContext) -> Stage:
    """Detections -> tracks, to the file and to the controller, with copies for monitors."""
    from tracking.stage import TrackStage
    from tracking.tracker import OnlineTracker

    plan = context.plan
    rows = track_rows(plan.experiment.detector.max_particles)
    monitor = MonitorPublisher(
        LOOPBACK, run_id=plan.run_id, source="liveptv/track", security=plan.keys.password
    )
    context.stack.callback(monitor.close)
    context.bound["monitor"] = monitor.address
    senders = [context.sender(consumer, table_bytes(Tracks, rows)) for consumer in plan.consumers]
    context.announce()
    tracker = OnlineTracker(plan.experiment.tracker)
    with noticing_compilation(context.say_compiling):
        tracker.warmup()
    return TrackStage(context.upstream(), tracker, senders, max_rows=rows, monitor=monitor, say=context.say)


def build_write(context: StageContext) -> Stage:
    """Tracks -> trajectory file."""
    from liveptv.session.provenance import file_attributes
    from tracking.trajectories.file import TrajectoryWriter
    from tracking.trajectories.stage import WriteStage

    plan, run = context.plan, context.plan.experiment.run
    receiver = context.upstream()
    writer = TrajectoryWriter(
        run.output,
        run_id=plan.run_id,
        attributes=file_attributes(plan.experiment, context.peers().image_format),
        overwrite=run.overwrite,
    )
    context.stack.callback(writer.close)
    return WriteStage(receiver, writer, record=context.record)


def build_control(context: StageContext) -> Stage:
    """Tracks -> commands to the microscope; a controller can be switched on later."""
    from stream.commands import CommandClient, CommandServer
    from tracking.control.controllers import load_controller
    from tracking.control.stage import ControlStage
    from tracking.control.switch import ControllerSwitch

    experiment = context.plan.experiment
    if not experiment.can_be_controlled:
        raise ConfigurationError("a control stage needs a microscope to steer; a recording has none")
    controller = None
    if experiment.is_controlled:
        controller = load_controller(experiment.controller, experiment.protocol)
    requests = CommandServer(LOOPBACK, context.plan.keys.curve)
    context.stack.callback(requests.close)
    context.bound["requests"] = requests.address
    client = CommandClient(context.peers().addresses["commands"], context.plan.keys.curve)
    context.stack.callback(client.close)
    switch = ControllerSwitch(requests, experiment.controller)
    return ControlStage(context.upstream(), controller, client, context.say, context.record, switch)


BUILDERS: dict[str, Callable[[StageContext], Stage]] = {
    "acquire": build_acquire,
    "detect": build_detect,
    "track": build_track,
    "write": build_write,
    "control": build_control,
}
