"""Opens a recorded run as the source of a replay, with what its detector decided where the replay takes that."""

from __future__ import annotations

from acquisition.recorded_run.places import RecordedFiles, table_of
from acquisition.recorded_run.source import RecordedRun
from acquisition.recorder.frame_table import FrameTable
from acquisition.settings import RecordingSettings
from stream.messages import Decisions
from tracking.trajectories.decisions import decisions_of
from tracking.trajectories.reader import TrajectoryFile
from tracking.trajectories.schema import RecordArray

RUN, OFF = "run", "off"
"""Values of `recording.decisions` once a replay is prepared (`liveptv.replaying.preparing`)."""


def open_recorded_run(settings: RecordingSettings, files: RecordedFiles, run_id: str) -> RecordedRun:
    """The source of a replay whose settings are prepared. Raises `SourceError` if a file cannot be read."""
    decisions: dict[int, Decisions] | None = None
    if settings.decisions == RUN:
        with TrajectoryFile(files.trajectories) as file:
            decisions = decisions_by_frame(file.frames, table_of(files))
    return RecordedRun(
        files,
        run_id=run_id,
        decisions=decisions,
        rate_hz=settings.frame_rate_hz,
        pixel_size_um=settings.pixel_size_um,
        pace=settings.pace,
    )


def decisions_by_frame(frames: RecordArray, table: FrameTable) -> dict[int, Decisions]:
    """What the run decided, by frame, of the frames in its trajectory file (`frames`, FRAME) that were recorded."""
    recorded = {row.info.frame for row in table.rows}
    found = ((int(entry["frame"]), decisions_of(entry)) for entry in frames)
    return {number: made for number, made in found if made is not None and number in recorded}
