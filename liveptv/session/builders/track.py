"""Builds the tracking stage: detections -> tracks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from liveptv.session.compilation import noticing_compilation
from liveptv.session.link_rules import (
    result_options,
    wants_predictions,
)
from liveptv.session.stage_context import StageContext
from stream.messages import Predictions, Tracks
from stream.monitor import MonitorPublisher
from stream.stage import Stage

if TYPE_CHECKING:
    pass

from liveptv.session.builders.slots import LOOPBACK, table_bytes, track_rows


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
    if source is not None and source.is_volume:
        with noticing_compilation(context.say_compiling), last_compiled_beside():
            tracker.warmup_switching()
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
