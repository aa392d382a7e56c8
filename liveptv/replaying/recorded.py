"""Finds the recording of a run and its trajectory file, from the name of either, and the settings of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from acquisition.recorded_run.places import RecordedFiles, recorded_files
from acquisition.recorder.settings import RecordSettings, frame_table_of
from stream.errors import SourceError
from tracking.trajectories.schema import SCHEMA

TAKEN = ("detector", "tracker", "optics", "channel")
"""Sections of a run's settings that a replay takes where the user gives nothing else. What belongs to its
microscope (limits, controller, protocol) and to the computer (links, session) is not taken."""

ANOTHER_DETECTOR = {"detector.file", "detector.engine"}
INPUTS = ("model", "bright", "dark", "file")
"""Settings of the detector that name files which its results depend on."""


@dataclass(frozen=True, slots=True)
class RecordedRunFiles:
    """A recorded run. `attributes` are those of its trajectory file, empty if that is not there."""

    recording: RecordedFiles
    attributes: dict[str, Any]

    @property
    def has_trajectories(self) -> bool:
        """Whether its trajectory file is there."""
        return bool(self.attributes)

    def settings_for(self, overrides: Iterable[str]) -> dict[str, Any]:
        """The settings of the run that a replay takes, as sections of an experiment.

        Where `overrides` (`section.key=value`) ask for another kind of detector, none of `[detector]` is taken.
        """
        keys = {override.partition("=")[0].strip() for override in overrides}
        return {
            name: values
            for name, values in self.settings.items()
            if name != "detector" or not keys & ANOTHER_DETECTOR
        }

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the run that a replay takes, as sections of an experiment."""
        given = self.attributes.get("configuration")
        if not isinstance(given, dict):
            return {}
        taken = {name: dict(given[name]) for name in TAKEN if isinstance(given.get(name), dict)}
        if "detector" in taken:
            taken["detector"] = _with_model_here(taken["detector"], self.recording.table.parent)
        return taken


def recorded_run(path: Path) -> RecordedRunFiles | None:
    """The recorded run of which `path` is the trajectory file, the images or the frame table; None if it is none.

    Raises `SourceError` for a trajectory file without a recording, and for files that cannot be read.
    """
    if is_trajectory_file(path):
        recording = _recording_of(path)
        return RecordedRunFiles(recording, attributes_of(path))
    found = recorded_files(path)
    if found is None:
        return None
    tracks = found.trajectories
    attributes = attributes_of(tracks) if tracks.is_file() and is_trajectory_file(tracks) else {}
    return RecordedRunFiles(found, attributes)


def inputs_of(path: Path) -> list[Path]:
    """The files that a replay of `path` reads, which its output must not replace."""
    found = recorded_run(path)
    if found is None:
        return [path]
    return [found.recording.images, found.recording.table, found.recording.trajectories]


def is_trajectory_file(path: Path) -> bool:
    """Whether this is a trajectory file, by its mark; False for all else, also for what cannot be read."""
    try:
        if not path.is_file() or not h5py.is_hdf5(path):
            return False
        with h5py.File(path, "r", locking=False, swmr=True) as file:
            return bool(file.attrs.get("schema") == SCHEMA)
    except OSError:
        return False


def attributes_of(path: Path) -> dict[str, Any]:
    """The attributes of a trajectory file. Raises `SourceError` if it cannot be read."""
    from tracking.trajectories.reader import TrajectoryFile

    with TrajectoryFile(path) as file:
        return file.attributes


def _recording_of(tracks: Path) -> RecordedFiles:
    attributes = attributes_of(tracks)
    given = attributes.get("configuration")
    record = given.get("record") if isinstance(given, dict) else None
    output = record.get("output") if isinstance(record, dict) else None
    tried = [RecordSettings().images(tracks)]
    if isinstance(output, str):
        tried += [tracks.with_name(Path(output).name), Path(output)]
    for images in tried:
        table = frame_table_of(images)
        found = recorded_files(table) if table.is_file() else None
        if found is not None:
            return RecordedFiles(found.images, found.table, tracks)
    raise SourceError(
        f"{tracks} has no recording beside it (no {frame_table_of(tried[0]).name}): record a run with "
        "--set record.mode=all, or give the recording"
    )


def _with_model_here(detector: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The detector's settings with files that have moved together with the recording."""
    moved = dict(detector)
    for name, value in detector.items():
        if name in INPUTS and isinstance(value, str) and not Path(value).exists():
            here = folder / Path(value).name
            if here.exists():
                moved[name] = str(here)
    return moved
