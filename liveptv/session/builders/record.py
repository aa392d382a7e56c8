"""Builds the recording stage: frames -> image file and frame table."""

from __future__ import annotations

import math
import shutil
from functools import partial

from liveptv.session.builders.slots import LOOPBACK
from liveptv.session.link_rules import frame_rules
from liveptv.session.stage_context import StageContext
from stream.errors import LinkError
from stream.stage import Stage


def build_record(context: StageContext) -> Stage:
    """Frames -> image file and frame table, every frame or those around events."""
    from acquisition.recorder.disk_rate import measure_disk
    from acquisition.recorder.events.opening import open_keeper
    from acquisition.recorder.image_writer import ImageFacts
    from acquisition.recorder.opening import DiskNeed, open_output
    from acquisition.recorder.stage import RecordStage
    from acquisition.recorder.writer_thread import WriterThread
    from stream.commands import CommandServer

    plan = context.plan
    settings, run = plan.experiment.record, plan.experiment.run
    folder = settings.images(run.output).parent
    requests = CommandServer(LOOPBACK, plan.keys.curve)
    context.stack.callback(requests.close)
    context.bound["requests"] = requests.address
    context.announce()
    disk = measure_disk(folder)
    images = context.peers().image_format
    if images is None:
        raise LinkError("the recorder did not get the size of the images")
    facts = ImageFacts(
        images.shape,
        images.dtype,
        images.pixel_size_um,
        images.frame_rate_hz,
        plan.run_id,
        run.output.stem,
        images.description,
        images.z_step_um,
    )
    rate_hz = images.frame_rate_hz
    camera = images.nbytes * rate_hz if math.isfinite(rate_hz) and rate_hz > 0 else math.nan
    need = DiskNeed(camera, disk, shutil.disk_usage(folder).free)
    context.record("recorder", need.in_words(), need.to_dict())

    def tell(text: str) -> None:
        context.record("recorder", text, {})

    opener = partial(open_output, settings, facts, run.output, tell, overwrite=run.overwrite)
    waits = not frame_rules(plan.experiment, images).is_live
    keeper = open_keeper(settings, facts, tell, context.record, waits=waits)
    receiver = context.upstream()
    return RecordStage(receiver, keeper, WriterThread(opener), requests)
