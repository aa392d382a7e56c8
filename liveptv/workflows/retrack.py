"""Tracks the detections of a trajectory file again with other settings, without the images."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from liveptv.config import Experiment, build_experiment
from liveptv.config.loading import apply_override
from liveptv.session.builders.slots import track_rows
from liveptv.session.provenance import sha256
from liveptv.session.supervisor import new_run_id
from stream.errors import ConfigurationError, SourceError
from stream.messages import Detections, Tracks
from stream.unfinished_files import UnfinishedFile
from tracking.as_detected import as_kept, assumed_um, detections_in, without_assumed
from tracking.row_limit import without_excess
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker
from tracking.trajectories.compression import pack
from tracking.trajectories.concatenation import OF_THE_FILE, copy_events, copy_picture
from tracking.trajectories.control_record import read_control, store_control
from tracking.trajectories.file import TrajectoryFile, TrajectoryWriter
from tracking.trajectories.playback import play

log = logging.getLogger(__name__)

COMMIT_S = 1.0  # s between commits of the file; a crash loses that much work, a commit costs milliseconds
SECTIONS = ("tracker", "run")
NOT_KEPT = {*OF_THE_FILE, "end_reason", "recording"}
"""Attributes of the first file that are not those of the second: the recorded frames belong to the first."""
STOPPED = "stopped before the end of the detections"
ROUNDED = (
    "{} is of an earlier version, which rounded the detections only after it had tracked them: with the same "
    "settings the trajectories are nearly the same, not to the last bit"
)
NO_SLICES = (
    "{} has tracks in volumes and is of an earlier version, which did not keep which slices were missing and when "
    "each was taken: with the same settings the trajectories are nearly the same, not to the last bit"
)


def settings_for(path: Path, overrides: list[str] | None = None) -> Experiment:
    """The settings of the run that wrote a trajectory file, as far as they concern tracking, with `overrides`.

    Raises `SourceError` if the file cannot be read or says nothing of its settings, `ConfigurationError` for other
    settings than those of the tracker.
    """
    with TrajectoryFile(path) as file:
        stored = file.attributes.get("configuration", {}).get("tracker")
    data: dict[str, Any] = {"tracker": dict(stored) if isinstance(stored, dict) else {}}
    for override in overrides or ():
        section = override.partition(".")[0].strip()
        if section not in SECTIONS:
            raise ConfigurationError(
                f"--set {override!r}: what was detected stays as it is, only [tracker] has an effect; leave it "
                "out"
            )
        apply_override(data, override)
    return build_experiment(data, f"the settings of {path} with those given")


def retrack(
    path: Path, experiment: Experiment, *, caution: Callable[[str], None] = log.warning
) -> dict[str, float]:
    """Track the detections of the trajectory file at `path` again, into `experiment.run.output`.

    Returns the new file's statistics. `caution` gets a line if displacements are too large to be linked reliably,
    and one if an old file does not keep detections or volumes exactly. Raises `SourceError` if the file cannot be
    read or is not finished, `OutputError` if the output exists or cannot be written.
    """
    with TrajectoryFile(path) as file:
        if not file.finished:
            raise SourceError(
                f"{path} is not finished; end its run first, or repair it with `liveptv recover`"
            )
        if not file.keeps_detections:
            caution(ROUNDED.format(path))
        if not file.keeps_slices:
            caution(NO_SLICES.format(path))
        unfinished = UnfinishedFile(experiment.run.output, overwrite=experiment.run.overwrite)
        try:
            _write(file, experiment, unfinished.path, caution)
            if entries := read_control(path):
                store_control(unfinished.path, entries)
            copy_picture(path, unfinished.path)
            pack(unfinished.path)
            with TrajectoryFile(unfinished.path) as written:
                statistics: dict[str, float] = written.attributes["statistics"]
        except BaseException:
            unfinished.discard()
            raise
    unfinished.finish()
    return statistics


def _write(
    file: TrajectoryFile, experiment: Experiment, output: Path, caution: Callable[[str], None]
) -> None:
    again = TracksAgain(file, experiment.tracker)
    attributes = _attributes(file, experiment)
    with TrajectoryWriter(output, run_id=new_run_id(), attributes=attributes, overwrite=True) as writer:
        end_reason = STOPPED
        try:
            due_s = time.monotonic() + COMMIT_S
            for tracks in again:
                writer.append(tracks)
                if time.monotonic() > due_s:
                    writer.commit()
                    due_s = time.monotonic() + COMMIT_S
            copy_events(file, writer)
            writer.event("retracked", f"the detections of {file.path.name} were tracked again")
            end_reason = "done"
            if again.tracker.remark:
                caution(again.tracker.remark)
        finally:
            learnt = again.tracker.diffusion_um2_s
            accounts = dict(file.attributes.get("accounts", {}))
            writer.finalize(
                {
                    "accounts": accounts | {"track": dict(again.counts)},
                    "learnt": {"diffusion_um2_s": learnt} if math.isfinite(learnt) else {},
                },
                end_reason,
            )


class TracksAgain:
    """Iterates over the tracks of a file's detections with other settings, as a run with these would have had them.

    The tracker begins anew where the run had been continued after an interruption, and ends all tracks where the
    size of a pixel changed.
    """

    def __init__(self, file: TrajectoryFile, settings: TrackerSettings) -> None:
        self._file, self._settings = file, settings
        configuration = file.attributes.get("configuration", {})
        before = configuration.get("tracker")
        self._assumed_um = assumed_um(TrackerSettings(**before)) if isinstance(before, dict) else None
        self._begins = {int(part["first_frame"]) for part in file.attributes.get("joined", [])[1:]}
        self._max_rows = None
        if "image_shape" in file.attributes:  # a run, whose messages hold so many rows
            self._max_rows = track_rows(int(configuration.get("detector", {}).get("max_particles", 2000)))
        self._before: dict[str, int] = {}
        self.tracker = OnlineTracker(settings)

    @property
    def counts(self) -> dict[str, int]:
        """Those of the tracker, over all parts."""
        return {name: n + self._before.get(name, 0) for name, n in self.tracker.counts.items()}

    def __iter__(self) -> Iterator[Tracks]:
        pixel_size_um, offset, most = None, 0, -1
        numbers = [Tracks.COLUMNS.index(name) for name in ("track", *Tracks.LINKED)]
        for stored in play(self._file):
            info = stored.info
            if info.frame in self._begins:
                self.tracker.finish()
                self._before, offset = self.counts, most + 1
                self.tracker = OnlineTracker(self._settings)
            elif pixel_size_um not in (None, info.pixel_size_um):
                self.tracker.finish()
            pixel_size_um = info.pixel_size_um
            tracks = self.tracker.step(as_kept(self._given(stored), self._settings))
            tracks, _ = without_excess(tracks, self._max_rows)
            if offset:
                table = np.array(tracks.table)
                table[numbers] += offset
                tracks = replace(tracks, table=table)
            if len(tracks):
                most = max(most, int(tracks.track.max()))
            yield tracks
        self.tracker.finish()

    def _given(self, stored: Tracks) -> Detections:
        detections = detections_in(stored)
        return detections if self._assumed_um is None else without_assumed(detections, self._assumed_um)


def _attributes(file: TrajectoryFile, experiment: Experiment) -> dict[str, Any]:
    """Those of the first file, with the new settings of the tracker and which file this was."""
    before = file.attributes
    kept = {name: value for name, value in before.items() if name not in NOT_KEPT}
    configuration = dict(before.get("configuration", {}))
    configuration["tracker"] = experiment.tracker.model_dump(mode="json")
    origin = {"file": file.path.name, "run_id": before["run_id"], "sha256": sha256(file.path)}
    if "retracked" in before:
        origin["from"] = before["retracked"]
    return kept | {"configuration": configuration, "retracked": origin}
