"""Decides, before a replay begins, whether it does what the run did or goes through all frames, and says why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acquisition.recorded_run.places import table_of
from acquisition.recorder.frame_table import FrameTable
from acquisition.recording import open_stack
from acquisition.settings import RecordingSettings
from engines.factory import NETWORK_SUFFIX
from liveptv.config import Experiment
from liveptv.replaying.recorded import RecordedRunFiles, recorded_run
from liveptv.replaying.sameness import difference, what_is_missing
from liveptv.session.recorded_source import OFF, RUN, decisions_by_frame
from stream.errors import ConfigurationError
from tracking.trajectories.reader import TrajectoryFile


@dataclass(frozen=True, slots=True)
class PreparedReplay:
    """The experiment of a replay; for a recorded run, a line on how it is replayed and the facts of it."""

    experiment: Experiment
    text: str = ""
    facts: dict[str, Any] | None = None


def prepare_replay(experiment: Experiment) -> PreparedReplay:
    """Settle how a recorded run is replayed; other sources are left as they are.

    Raises `SourceError` where the recording cannot be read, and `ConfigurationError` where the run's decisions are
    asked for and are not known.
    """
    settings = experiment.recording
    if settings is None:
        return PreparedReplay(experiment)
    found = recorded_run(settings.path)
    if found is None:
        if settings.decisions == RUN:
            raise ConfigurationError(
                f"{settings.path} is no recorded run, so there are no decisions of its detector; leave out "
                "recording.decisions"
            )
        return PreparedReplay(experiment)
    table, run_id = (
        _with_images(table_of(found.recording), found.recording.images),
        found.attributes.get("run_id"),
    )
    frames, why = 0, "the run's trajectory file is not there"
    if found.has_trajectories:
        with TrajectoryFile(found.recording.trajectories) as file:
            missing = what_is_missing(file.frames, table)
            frames = len(file.frames)
            known = decisions_by_frame(file.frames, table)
        why = "the trajectory file is of another run" if run_id != table.run_id else missing
        if settings.decisions == RUN and not known:
            raise ConfigurationError(
                f"the decisions of the detector in run {table.run_id} are not known ({why}); leave out "
                "recording.decisions"
            )
        why = why or difference(experiment, found.attributes)
    elif settings.decisions == RUN:
        raise ConfigurationError(f"{why} ({found.recording.trajectories}); leave out recording.decisions")
    takes = settings.decisions == RUN or (settings.decisions == "auto" and not why)
    if settings.decisions == OFF:
        why = 'recording.decisions is "off"'
    text = _in_words(table.run_id, takes, why, frames, len(table.rows))
    facts = {
        "run_id": table.run_id,
        "images": found.recording.images.name,
        "decisions": RUN if takes else OFF,
        "same": takes and not why,
        "why": why,
    }
    return PreparedReplay(_settled(experiment, settings, found, takes), text, facts)


def _with_images(table: FrameTable, images: Path) -> FrameTable:
    """The table without the rows whose images are not in the file, as after a power failure."""
    stack = open_stack(images)
    try:
        return replace(table, rows=tuple(row for row in table.rows if row.index < stack.info.planes))
    finally:
        stack.close()


def _in_words(run_id: str, takes: bool, why: str, frames: int, recorded: int) -> str:
    if not takes:
        return f"replay of run {run_id} through all {recorded} recorded frames, each as if there were time: {why}"
    done = f"replay of run {run_id} as it was: its {frames} tracked frames, with what the detector decided on each"
    return f"{done} (model, settings and versions are the run's)" if not why else f"{done}; but {why}"


def _settled(
    experiment: Experiment, settings: RecordingSettings, found: RecordedRunFiles, takes: bool
) -> Experiment:
    changes = {"path": found.recording.images, "decisions": RUN if takes else OFF}
    recording = settings.model_copy(update=changes)
    detector = experiment.detector
    engine = found.attributes.get("engine")
    ran_on = engine.get("backend") if isinstance(engine, dict) else None
    is_network = detector.model is not None and detector.model.suffix.lower() == NETWORK_SUFFIX
    if takes and is_network and detector.backend == "auto" and isinstance(ran_on, str):
        detector = detector.model_copy(update={"backend": ran_on})
    return experiment.model_copy(update={"recording": recording, "detector": detector})
