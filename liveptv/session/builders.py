"""Builds each pipeline stage from the experiment. A package is imported only in the process that needs it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from liveptv.session.compilation import noticing_compilation
from liveptv.session.console_window import before_it_closes
from liveptv.session.link_rules import (
    FrameRules,
    frame_options,
    frame_rules,
    result_options,
    wants_predictions,
)
from liveptv.session.plan import ImageFormat
from liveptv.session.stage_context import StageContext
from stream.errors import ConfigurationError, LinkError
from stream.link import Policy
from stream.messages import Detections, ParticleTable, Predictions, Tracks
from stream.monitor import MonitorPublisher
from stream.stage import Stage
from stream.waker import Waker

if TYPE_CHECKING:
    from engines.engine import Engine

PREDICTION = "prediction"
"""The entry of the event log on predictions, and what an engine's details say of them; False: it cannot use any."""
LOOPBACK = "tcp://127.0.0.1:0"


def table_bytes(kind: type[ParticleTable], rows: int) -> int:
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
        opened.keeps_time,
    )
    rules = frame_rules(plan.experiment, context.image_format)
    context.record("link", f"link.policy {rules.in_words()}", rules.to_dict())
    options = frame_options(plan.experiment, context.image_format)
    waker = Waker()
    context.stack.callback(waker.close)
    opened.announce(waker.wake)
    nbytes = context.image_format.nbytes
    senders = [context.sender(consumer, nbytes, options, waker.wake) for consumer in plan.consumers]
    commands = CommandServer(LOOPBACK, plan.keys.curve)
    context.stack.callback(commands.close)
    context.bound["commands"] = commands.address
    context.peers()
    context.begin = opened.source.start
    stage = AcquireStage(
        opened.source,
        senders,
        commands=commands,
        executor=opened.executor,
        frames=plan.experiment.run.frames,
        seconds=plan.experiment.run.seconds,
        on_end=lane.ended,
        wait=commands.waiter(waker),
        quiet_s=opened.quiet_s,
        newest_only=rules.is_live,
    )
    drain_s = plan.experiment.session.stop_timeout_s
    lane.attach(lambda reason, is_orphaned: stage.request_stop(reason, drain_s if is_orphaned else math.inf))
    return stage


def build_detect(context: StageContext) -> Stage:
    """Frames -> detections, with copies for monitors."""
    from engines.factory import check_pixel_size, open_engine, prepare_to_open
    from engines.prediction_choice import PredictionChoice
    from engines.stage import DetectStage

    plan, settings = context.plan, context.plan.experiment.detector
    (consumer,) = plan.consumers
    slot_bytes = table_bytes(Detections, settings.max_particles)
    waker = Waker()
    context.stack.callback(waker.close)
    sender = context.sender(consumer, slot_bytes, result_options(plan.experiment, slot_bytes), waker.wake)
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

    rules = frame_rules(plan.experiment, image_format)

    def open_for(pixel_size_um: float) -> Engine:
        engine = open_engine(
            settings,
            model=settings.model,
            pixel_size_um=pixel_size_um,
            say=context.say,
            fit_may_join=rules.is_live,  # others wait: their results are always the same
        )
        context.stack.callback(engine.close)
        with noticing_compilation(context.say_compiling):
            engine.warmup(image_format.height, image_format.width, np.dtype(image_format.dtype))
        return governed(context, engine, image_format, rules)

    def reopen(pixel_size_um: float) -> Engine:
        check_pixel_size(settings.model, pixel_size_um)
        context.say(f"detecting with {pixel_size_um:g} um a pixel from now on; all tracks start again")
        return open_for(pixel_size_um)

    engine = open_for(image_format.pixel_size_um)
    info = engine.info
    context.record("engine", f"{info.name} detector on {info.backend} ({info.device})", asdict(info))
    predictions = None
    if wants_predictions(plan.experiment) and info.details.get(PREDICTION, False) is not False:
        waits = rules.policy is Policy.BLOCK
        open_link = partial(context.prediction_receiver, waker)
        predictions = PredictionChoice(open_link, waits=waits, say=context.say)
        record_prediction(context, waits)
    hz = plan.experiment.session.monitor_hz
    return DetectStage(
        context.upstream(waker),
        engine,
        sender,
        monitor=monitor,
        monitor_hz=hz,
        reopen=reopen,
        age_limit_ms=rules.age_limit_ms,
        waker=waker,
        predictions=predictions,
    )


def record_prediction(context: StageContext, waits: bool) -> None:
    """Write into the event log that the detector uses the tracker's predictions, and how old they are."""
    from engines.prediction_choice import LAG, MOST_AGE

    age = f"{LAG} frames old" if waits else f"at most {MOST_AGE} frames old"
    text = f"tracked particles are fitted from where they are predicted, once the fit is there (predictions {age})"
    context.record(PREDICTION, text, {"waits": waits, "lag": LAG, "most_age": MOST_AGE})


def governed(context: StageContext, engine: Engine, images: ImageFormat, rules: FrameRules) -> Engine:
    """The engine, in a live run with its fit limited to what the camera leaves time for.

    Each change of what is fitted goes into the event log.
    """
    from engines.governed_engine import GovernedEngine
    from engines.governor import Change, Governor

    if not rules.is_live:
        return engine
    period_ms = 1e3 / images.frame_rate_hz if images.frame_rate_hz > 0 else 0.0
    workers = int(engine.info.details.get("workers", 1))

    def report(change: Change) -> None:
        context.record("governor", change.text, dict(change.facts))

    return GovernedEngine(engine, Governor(workers, rules.age_limit_ms, time.monotonic, period_ms), report)


def build_track(context: StageContext) -> Stage:
    """Detections -> tracks, to the file and to the controller, with copies for monitors."""
    from tracking.compiling import last_compiled_beside
    from tracking.stage import TrackStage
    from tracking.tracker import OnlineTracker

    plan = context.plan
    rows = track_rows(plan.experiment.detector.max_particles)
    monitor = MonitorPublisher(
        LOOPBACK, run_id=plan.run_id, source="liveptv/track", security=plan.keys.password
    )
    context.stack.callback(monitor.close)
    context.bound["monitor"] = monitor.address
    slot_bytes = table_bytes(Tracks, rows)
    options = result_options(plan.experiment, slot_bytes)
    senders = [context.sender(consumer, slot_bytes, options) for consumer in plan.consumers]
    predictions = None
    if wants_predictions(plan.experiment):
        predictions = context.prediction_sender(table_bytes(Predictions, rows))
    context.announce()
    tracker = OnlineTracker(plan.experiment.tracker)
    with noticing_compilation(context.say_compiling), last_compiled_beside():
        tracker.warmup()
    source = context.peers().image_format
    return TrackStage(
        context.upstream(),
        tracker,
        senders,
        max_rows=rows,
        monitor=monitor,
        say=context.say,
        keeps_time=source is None or source.keeps_time,
        predictions=predictions,
    )


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
    return ControlStage(upstream, controller, client, context.say, context.record, switch, WOKEN_POLL_S)


BUILDERS: dict[str, Callable[[StageContext], Stage]] = {
    "acquire": build_acquire,
    "detect": build_detect,
    "track": build_track,
    "write": build_write,
    "control": build_control,
}
