"""Detection and tracking of files in one process: the same engine and tracker as live, without sockets."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engines.engine import Engine
from engines.settings import MOST_PARTICLES, DetectorSettings
from liveptv.config import Experiment
from liveptv.session.provenance import file_attributes
from liveptv.session.supervisor import new_run_id
from liveptv.tables import DetectionTable, iter_detections, read_detection_table
from liveptv.tables.columns_option import Wanted
from liveptv.tables.reader import AS_IT_IS
from stream.errors import ConfigurationError, LivePTVError, SourceError
from stream.messages import Detections, Frame
from stream.unfinished_files import UnfinishedFile
from tracking.tracker import OnlineTracker
from tracking.trajectories.compression import pack
from tracking.trajectories.file import TrajectoryFile, TrajectoryWriter

log = logging.getLogger(__name__)

COMMIT_S = 1.0
READ_S = 1.0
WAIT_S = 10.0
STOPPED = "stopped before the end of the table"


def detect_images(
    path: Path,
    settings: DetectorSettings,
    *,
    pixel_size_um: float | None = None,
    axes: str | None = None,
    say: Callable[[str], None] = log.warning,
) -> Iterator[tuple[Detections, int | None]]:
    """Detect in every frame of a recording; yields each frame's detections and how many frames there are.

    A pixel's size that neither is given nor stands in the file is the model's, or 1 um. Unless the settings say
    how many particles a frame may have, it may have as many as a detector can give: no link has to hold them
    here. `say` gets a line for whatever was assumed or decided of the recording; what is left out is said once
    when it begins, and in total at the end.

    Frames are numbered as in the recording: the number of one that is lost is left out.

    Raises `SourceError` if the recording cannot be read, `ConfigurationError` if the model or `axes` do not fit it.
    """
    from acquisition.recording import open_recording
    from engines.factory import open_engine, pixel_size_of
    from engines.watched_engine import summary_of

    if "max_particles" not in settings.model_fields_set:
        settings = settings.model_copy(update={"max_particles": MOST_PARTICLES})
    recording = open_recording(
        path,
        run_id=new_run_id(),
        axes=axes,
        pixel_size_um=pixel_size_um,
        model_pixel_size_um=partial(pixel_size_of, settings.model),
    )
    try:
        info = recording.info
        for text in recording.remarks:
            say(f"{path.name}: {text}")
        if info.depth > 1:
            raise ConfigurationError(f"{path} holds volumes of {info.depth} planes; give single images")
        engine = open_engine(settings, model=settings.model, pixel_size_um=info.pixel_size_um, say=say)
        try:
            engine.warmup(info.height, info.width, np.dtype(info.dtype))
            recording.start()
            while not recording.ended:
                frame = recording.read(READ_S)
                if frame is None:
                    continue
                engine.submit(_numbered(frame, recording.first_number))
                yield from ((found, info.frames) for found in engine.results(0.0))
            yield from ((found, info.frames) for found in _rest(engine))
            if left_out := summary_of(engine.counts()):
                say(f"in all: {left_out}")
        finally:
            engine.close()
    finally:
        recording.close()


def _numbered(frame: Frame, first: int) -> Frame:
    """The frame under its number in the recording: where one is lost, its number is left out."""
    return replace(frame, info=replace(frame.info, frame=frame.info.camera_frame - first))


def _rest(engine: Engine) -> Iterator[Detections]:
    while engine.pending:
        yield from engine.results(WAIT_S)


def track_table(
    path: Path,
    experiment: Experiment,
    wanted: Wanted = AS_IT_IS,
    *,
    say: Callable[[str], None] = log.info,
    caution: Callable[[str], None] = log.warning,
) -> dict[str, float]:
    """Link a table of detections into `experiment.run.output`; returns the file's statistics.

    `wanted` and `say` are those of `read_detection_table`; `caution` is told of displacements that links cannot
    resolve.

    Raises `SourceError` if the table cannot be read or is empty, `OutputError` if the file exists.
    """
    table = read_detection_table(path, wanted, say)
    if len(table) == 0:
        raise SourceError(f"{path} holds no detections; there is nothing to track")
    unfinished = UnfinishedFile(experiment.run.output, overwrite=experiment.run.overwrite)
    try:
        _link(table, path.name, experiment, unfinished.path, caution)
        pack(unfinished.path)
        with TrajectoryFile(unfinished.path) as file:
            statistics: dict[str, float] = file.attributes["statistics"]
    except BaseException as error:
        _keep(unfinished, error)
        raise
    unfinished.finish()
    return statistics


def _link(
    table: DetectionTable, source: str, experiment: Experiment, output: Path, caution: Callable[[str], None]
) -> None:
    settings, run_id = experiment.tracker, new_run_id()
    tracker = OnlineTracker(settings)
    attributes: dict[str, Any] = file_attributes(experiment, None) | {"source": source}
    with TrajectoryWriter(output, run_id=run_id, attributes=attributes, overwrite=True) as writer:
        end_reason = STOPPED
        try:
            due_s = time.monotonic() + COMMIT_S
            for detections in iter_detections(table, settings.frame_rate_hz, run_id, source):
                writer.append(tracker.step(detections))
                if time.monotonic() > due_s:
                    writer.commit()
                    due_s = time.monotonic() + COMMIT_S
            tracker.finish()
            end_reason = "done"
            if tracker.remark:
                caution(tracker.remark)
        finally:
            learnt = tracker.diffusion_um2_s
            writer.finalize(
                {
                    "accounts": {"track": dict(tracker.counts)},
                    "failures": [],
                    "learnt": {"diffusion_um2_s": learnt} if math.isfinite(learnt) else {},
                },
                end_reason,
            )


def _keep(unfinished: UnfinishedFile, error: BaseException) -> None:
    """Keep what is linked of a table where there is something, and note it on the error; else remove it."""
    try:
        with TrajectoryFile(unfinished.path) as file:
            frames = len(file.frames)
    except LivePTVError:
        frames = 0
    if frames == 0:
        unfinished.discard()
        return
    error.add_note(unfinished.kept(f"trajectories of the first {frames} frames are"))
