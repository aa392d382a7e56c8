"""Detection and tracking of files in one process: the same engine and tracker as live, without sockets."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.settings import MOST_PARTICLES, DetectorSettings
from liveptv.config import Experiment
from liveptv.session.provenance import file_attributes
from liveptv.session.supervisor import new_run_id
from liveptv.tables import DetectionTable, iter_detections, read_detection_table
from liveptv.tables.columns_option import Wanted
from liveptv.tables.reader import AS_IT_IS
from stream.errors import LivePTVError, SourceError
from stream.messages import Detections, Frame
from stream.unfinished_files import UnfinishedFile
from tracking.as_detected import as_kept
from tracking.tracker import OnlineTracker
from tracking.trajectories.compression import pack
from tracking.trajectories.file import TrajectoryFile, TrajectoryWriter

if TYPE_CHECKING:
    from acquisition.recording import Recording

log = logging.getLogger(__name__)

COMMIT_S = 1.0  # s between commits of the file; a crash loses that much work, a commit costs milliseconds
WAIT_S = 10.0  # longest wait for results of the engine, s; then it is asked again
STOPPED = "stopped before the end of the table"


def detect_images(
    path: Path,
    settings: DetectorSettings,
    *,
    pixel_size_um: float | None = None,
    axes: str | None = None,
    z_step_um: float | None = None,
    say: Callable[[str], None] = log.warning,
) -> Iterator[tuple[Detections, int | None]]:
    """Detect in every frame of a recording; yields each frame's detections and how many frames there are.

    The pixel size is `pixel_size_um`, else that of the file, else that of the model, else 1 um. If the settings do
    not limit the particles per frame, the detector's own maximum applies, because no message has to hold them.
    `say` gets a line for each assumption or decision about the recording, and one for what was left out, at its
    first occurrence and in total at the end.

    Frames are numbered as in the recording; numbers of lost frames are skipped. The z planes of each time are one
    volume if the settings are for volumes, a `z_step_um` is given, or the file has volumes and the settings do
    not ask for a detector of images.

    Raises `SourceError` if the recording cannot be read, `ConfigurationError` if the model or `axes` do not fit it.
    """
    from acquisition.recording import open_recording
    from engines.factory import is_for_volumes, pixel_size_of
    from liveptv.volumes.reading import has_volumes

    if "max_particles" not in settings.model_fields_set:
        settings = settings.model_copy(update={"max_particles": MOST_PARTICLES})
    recording = open_recording(
        path,
        run_id=new_run_id(),
        axes=axes,
        pixel_size_um=pixel_size_um,
        model_pixel_size_um=partial(pixel_size_of, settings.model),
        volumes=True if z_step_um is not None else has_volumes(path, axes, settings),
        z_step_um=z_step_um,
    )
    try:
        info = recording.info
        for text in recording.remarks:
            say(f"{path.name}: {text}")
        found = detect_frames(
            recorded_frames(recording),
            settings,
            shape=(info.height, info.width),
            dtype=np.dtype(info.dtype),
            pixel_size_um=info.pixel_size_um,
            depth=info.depth,
            volumes=math.isfinite(info.z_step_um) or info.depth > 1 or is_for_volumes(settings),
            say=say,
        )
        yield from ((detections, info.frames) for detections in found)
    finally:
        recording.close()


def detect_frames(
    frames: Iterable[Frame],
    settings: DetectorSettings,
    *,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    pixel_size_um: float,
    depth: int = 1,
    volumes: bool = False,
    say: Callable[[str], None] = log.warning,
) -> Iterator[Detections]:
    """Detect in images (H, W) of one `shape` and `dtype`, or with `volumes` in volumes of `depth` of them;
    yields the detections of each frame, in order.

    `say` gets a line for what was left out, at its first occurrence and in total at the end. Raises
    `ConfigurationError` if the model cannot be used, `DetectionError` for images that cannot be read.
    """
    from engines.factory import open_engine
    from engines.watched_engine import summary_of

    engine = open_engine(
        settings, model=settings.model, pixel_size_um=pixel_size_um, say=say, volumes=volumes
    )
    try:
        engine.warmup(*shape, dtype, depth)
        for frame in frames:
            engine.submit(frame)
            yield from engine.results(0.0)
        while engine.pending:
            yield from engine.results(WAIT_S)
        if left_out := summary_of(engine.counts()):
            say(f"in all: {left_out}")
    finally:
        engine.close()


def recorded_frames(recording: Recording) -> Iterator[Frame]:
    """The frames with their numbers in the recording; numbers of lost frames are skipped."""
    for frame in recording.frames():
        number = frame.info.camera_frame - recording.first_number
        yield replace(frame, info=replace(frame.info, frame=number))


def track_table(
    path: Path,
    experiment: Experiment,
    wanted: Wanted = AS_IT_IS,
    *,
    say: Callable[[str], None] = log.info,
    caution: Callable[[str], None] = log.warning,
) -> dict[str, float]:
    """Link a table of detections into `experiment.run.output`; returns the file's statistics.

    `wanted` and `say` are those of `read_detection_table`; `caution` gets a line if displacements are too large to
    be linked reliably.

    Raises `SourceError` if the table cannot be read or is empty, `OutputError` if the file exists.
    """
    return link_table(read_detection_table(path, wanted, say), str(path), experiment, caution=caution)


def link_table(
    table: DetectionTable,
    name: str,
    experiment: Experiment,
    *,
    caution: Callable[[str], None] = log.warning,
) -> dict[str, float]:
    """Link detections into `experiment.run.output`; returns the file's statistics. See `track_table`."""
    if len(table) == 0:
        raise SourceError(f"{name} has no detections; there is nothing to track")
    unfinished = UnfinishedFile(experiment.run.output, overwrite=experiment.run.overwrite)
    try:
        _link(table, Path(name).name, experiment, unfinished.path, caution)
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
                writer.append(tracker.step(as_kept(detections, settings)))
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
    """Keep the frames that were linked, with a note on the error; remove an empty file."""
    try:
        with TrajectoryFile(unfinished.path) as file:
            frames = len(file.frames)
    except LivePTVError:
        frames = 0
    if frames == 0:
        unfinished.discard()
        return
    error.add_note(unfinished.kept(f"trajectories of the first {frames} frames are"))
