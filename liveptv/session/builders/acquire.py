"""Builds the acquisition stage: camera or recording -> frames, executing commands in between."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from liveptv.session.console_window import before_it_closes
from liveptv.session.link_rules import (
    frame_options,
    frame_rules,
    record_options,
)
from liveptv.session.plan import HARDWARE, RECORD
from liveptv.session.stage_context import StageContext
from stream.stage import Stage
from stream.waker import Waker

if TYPE_CHECKING:
    pass

from liveptv.session.builders.slots import LOOPBACK


def build_acquire(context: StageContext) -> Stage:
    """Camera or recording -> frames, executing commands in between."""
    from acquisition.stage import AcquireStage
    from liveptv.session.sources import open_source
    from stream.commands import CommandServer

    plan, lane = context.plan, context.lane
    opened = open_source(
        plan.experiment, plan.run_id, context.say, lane.opening, lambda: context.pipe.poll(0)
    )
    context.stack.callback(opened.close)
    lane.start(opened.executor)
    context.stack.callback(lane.close)
    before_it_closes(lane.close)
    for text in opened.remarks:
        context.record(opened.kind, text, {})
    context.image_format = opened.image_format
    rules = frame_rules(plan.experiment, context.image_format)
    context.record("link", f"link.policy {rules.in_words()}", rules.to_dict())
    options = frame_options(plan.experiment, context.image_format)
    waker = Waker()
    context.stack.callback(waker.close)
    opened.announce(waker.wake)
    record = plan.experiment.record
    if record.mode != "off" and record.on.hardware is not None:
        opened.watch(record.on.hardware, partial(_tell_of_hardware, context, record.on.hardware))
    nbytes = context.image_format.nbytes
    recorder = None
    if RECORD in plan.consumers:
        recorder = context.sender(RECORD, nbytes, record_options(plan.experiment, context.image_format))
    others = [consumer for consumer in plan.consumers if consumer != RECORD]
    senders = [context.sender(consumer, nbytes, options, waker.wake) for consumer in others]
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
        recorder=recorder,
        no_microscope=opened.no_microscope,
    )
    context.give_up_recorder = stage.give_up_recorder
    drain_s = plan.experiment.session.stop_timeout_s
    lane.attach(lambda reason, is_orphaned: stage.request_stop(reason, drain_s if is_orphaned else math.inf))
    return stage


def _tell_of_hardware(context: StageContext, name: str, frame: int, value: float) -> None:
    """Have the session ask for an event: it passes on who asks, and the recorder finds the frame by its number."""
    context.record(HARDWARE, f"{name} became {value:g} at frame {frame}", {"frame": frame, "value": value})
