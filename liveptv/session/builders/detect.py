"""Builds the detection stage: frames -> detections, with copies for viewers."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from liveptv.session.builders.slots import table_bytes
from liveptv.session.compilation import noticing_compilation
from liveptv.session.link_rules import (
    FrameRules,
    frame_rules,
    result_options,
    wants_predictions,
)
from liveptv.session.plan import ImageFormat
from liveptv.session.stage_context import StageContext
from stream.errors import LinkError
from stream.link import Policy
from stream.messages import Detections
from stream.monitor import MonitorPublisher
from stream.stage import Stage
from stream.waker import Waker

if TYPE_CHECKING:
    from engines.engine import Engine

RESTART_BITS = 16
"""Bits of the number of an engine that count how often it was opened since the detector was started."""
LAST_RESORT = "onnxruntime"
"""The back end that replaces one that fails (`engines.backends.failover`)."""
PREDICTION = "prediction"
"""The entry of the event log on predictions, and what an engine's details say of them; False: it cannot use any."""


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
        if settings.file is None:
            prepare_to_open(settings.model)  # the acquisition is opening the camera meanwhile
    image_format = context.peers().image_format
    if image_format is None:
        raise LinkError("the detector did not get the size of the images")
    rules = frame_rules(plan.experiment, image_format)

    def open_for(pixel_size_um: float, is_replaced: bool = False) -> Engine:
        engine = open_engine(
            settings.model_copy(update={"backend": LAST_RESORT}) if is_replaced else settings,
            model=settings.model,
            pixel_size_um=pixel_size_um,
            say=context.say,
            fit_may_join=rules.is_live,  # others wait: their results are always the same
            volumes=image_format.is_volume,
            while_waiting=context.look_up,
        )
        context.stack.callback(engine.close)
        with noticing_compilation(context.say_compiling):
            engine.warmup(
                image_format.height, image_format.width, np.dtype(image_format.dtype), image_format.depth
            )
        return governed(context, engine, image_format, rules)

    pixel_um = image_format.pixel_size_um

    def reopen(pixel_size_um: float, is_replaced: bool) -> Engine:
        nonlocal pixel_um
        if pixel_size_um != pixel_um:
            check_pixel_size(settings.model, pixel_size_um)
            context.say(f"detecting with {pixel_size_um:g} um a pixel from now on; all tracks start again")
            pixel_um = pixel_size_um
        return open_for(pixel_size_um, is_replaced)

    engine = open_for(pixel_um)
    info = engine.info
    context.record("engine", f"{info.name} detector on {info.backend} ({info.device})", asdict(info))
    predictions = None
    if wants_predictions(plan.experiment) and info.details.get(PREDICTION, False) is not False:
        waits = rules.policy is Policy.BLOCK
        open_link = partial(context.prediction_receiver, waker)
        predictions = PredictionChoice(open_link, waits=waits, say=context.say, follows=image_format.follows)
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
        follows=image_format.follows,
        opened=plan.restarts << RESTART_BITS,
    )


def record_prediction(context: StageContext, waits: bool) -> None:
    """Write into the event log that the detector uses the tracker's predictions, and how old they are."""
    from engines.prediction_choice import LAG, MOST_AGE

    age = f"{LAG} frames old" if waits else f"at most {MOST_AGE} frames old"
    text = f"tracked particles are fitted from where they are predicted, once the fit is there (predictions {age})"
    context.record(PREDICTION, text, {"waits": waits, "lag": LAG, "most_age": MOST_AGE})


def governed(context: StageContext, engine: Engine, images: ImageFormat, rules: FrameRules) -> Engine:
    """The engine, in a live run with its fit limited to what the camera leaves time for.

    Each change of what is fitted goes into the event log. A detector of a user's own has no fit to limit, and with
    `detector.too_slow` "drop" the fit is not limited.
    """
    from engines.governed_engine import GovernedEngine
    from engines.governor import Change, Governor

    settings = context.plan.experiment.detector
    if not rules.is_live or settings.file is not None or settings.too_slow == "drop":
        return engine
    period_ms = 1e3 / images.frame_rate_hz if images.frame_rate_hz > 0 else 0.0
    workers = int(engine.info.details.get("workers", 1))

    def report(change: Change) -> None:
        context.record("governor", change.text, dict(change.facts))

    return GovernedEngine(engine, Governor(workers, rules.age_limit_ms, time.monotonic, period_ms), report)
