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
from engines.settings import DetectorSettings
from liveptv.config import Experiment
from liveptv.provenance import file_attributes
from liveptv.session.supervisor import new_run_id
from liveptv.tables import iter_detections, read_detection_table
from stream.errors import ConfigurationError, SourceError
from stream.messages import Detections, Frame
from tracking.packing import pack
from tracking.tracker import OnlineTracker
from tracking.trajectory_file import TrajectoryFile, TrajectoryWriter

log = logging.getLogger(__name__)

COMMIT_S = 1.0
READ_S = 1.0
WAIT_S = 10.0


def detect_images(
    path: Path,
    settings: DetectorSettings,
    *,
    pixel_size_um: float | None = None,
    axes: str | None = None,
    say: Callable[[str], None] = log.warning,
) -> Iterator[tuple[Detections, int | None]]:
    """Detect in every frame of a recording; yields each frame's detections and how many frames there are.

    A pixel's size that neither is given nor stands in the file is the model's, or 1 um. `say` gets a line for
    whatever was assumed or decided of the recording.

    Frames are numbered as in the recording: the number of one that is lost is left out.

    Raises `SourceError` if the recording cannot be read, `ConfigurationError` if the model or `axes` do not fit it.
    """
    from acquisition.recording import open_recording
    from engines.factory import open_engine, pixel_size_of

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


def track_table(path: Path, experiment: Experiment) -> dict[str, float]:
    """Link a table of detections into `experiment.run.output`; returns the file's statistics.

    Raises `SourceError` if the table cannot be read or is empty, `OutputError` if the file exists.
    """
    table = read_detection_table(path)
    if len(table) == 0:
        raise SourceError(f"{path} holds no detections; there is nothing to track")
    settings, run, run_id = experiment.tracker, experiment.run, new_run_id()
    tracker = OnlineTracker(settings)
    attributes: dict[str, Any] = file_attributes(experiment, None) | {"source": path.name}
    with TrajectoryWriter(
        run.output, run_id=run_id, attributes=attributes, overwrite=run.overwrite
    ) as writer:
        due_s = time.monotonic() + COMMIT_S
        for detections in iter_detections(table, settings.frame_rate_hz, run_id):
            writer.append(tracker.step(detections))
            if time.monotonic() > due_s:
                writer.commit()
                due_s = time.monotonic() + COMMIT_S
        tracker.finish()
        learnt = (
            {"diffusion_um2_s": tracker.diffusion_um2_s} if math.isfinite(tracker.diffusion_um2_s) else {}
        )
        accounts = {"accounts": {"track": dict(tracker.counts)}, "failures": []}
        writer.finalize({**accounts, "learnt": learnt}, "done")
    pack(run.output)
    with TrajectoryFile(run.output) as file:
        statistics: dict[str, float] = file.attributes["statistics"]
    return statistics
