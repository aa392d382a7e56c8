"""Builds the writer: tracks -> trajectory file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from liveptv.session.stage_context import StageContext
from stream.stage import Stage

if TYPE_CHECKING:
    pass


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
