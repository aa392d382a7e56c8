"""A run of an experiment from Python: from a settings object to trajectories."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liveptv.api.trajectories import TrajectoryView
from liveptv.config import Experiment, build_experiment, load_experiment, revised
from liveptv.files import RunFiles
from liveptv.session.run_status import Progress
from liveptv.workflows.run import RunOutcome, run_experiment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from liveptv.api.frames import By, TrackFrame
    from liveptv.api.profiles import Profile

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended.

    Attributes
    ----------
    ok : bool
        Whether every pipeline stage came to its regular end.
    reason : str
        Why the run ended.
    failures : tuple of str
        One line for each stage that failed.
    frames, frames_lost : int
        Frames in the file, and frames that were taken and are in no result.
    tracks : Path
        The trajectory file.
    report : Path or None
        The report's page, where one could be made.
    """

    ok: bool
    reason: str
    failures: tuple[str, ...]
    frames: int
    frames_lost: int
    tracks: Path
    report: Path | None

    def trajectories(self) -> TrajectoryView:
        """What was measured; see `liveptv.open_trajectories`."""
        return TrajectoryView(self.tracks)

    def to_pandas(self, *, predicted: bool = False, flagged: bool = False) -> TrackFrame:
        """The trajectories; see `TrajectoryView.to_pandas`."""
        return self.trajectories().to_pandas(predicted=predicted, flagged=flagged)

    def plot(self, by: By = "speed", *, axes: Axes | None = None) -> Axes:
        """Draw the trajectories; see `TrajectoryView.plot`."""
        return self.trajectories().plot(by, axes=axes)

    def profile(self) -> Profile:
        """The velocity profile; see `TrajectoryView.profile`."""
        return self.trajectories().profile()


def experiment(settings: str | os.PathLike[str] | Mapping[str, Any]) -> Experiment:
    """Settings of an experiment, checked.

    Parameters
    ----------
    settings : path or mapping
        An experiment file (TOML), or its sections as nested dictionaries:
        `{"recording": {"path": "video.tif"}, "detector": {"model": "model.onnx"}}`; see docs/settings.md.

    Raises
    ------
    ConfigurationError
        With the key and what is wrong with it.
    """
    if isinstance(settings, str | os.PathLike):
        return load_experiment(Path(settings))
    return build_experiment(dict(settings), "the settings given")


def run(
    settings: Experiment | str | os.PathLike[str] | Mapping[str, Any],
    output: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_note: Callable[[str], None] = log.warning,
) -> Run:
    """Run an experiment on a microscope or a recording, as `liveptv run` does, and wait for its end.

    In a script, call it below `if __name__ == "__main__":`, since the pipeline stages are processes that import the
    script's modules anew; a notebook needs nothing.

    Parameters
    ----------
    settings : Experiment, path or mapping
        See `liveptv.experiment`.
    output : path, optional
        The trajectory file; report and event log go beside it. By default what the settings say.
    overwrite : bool
        Replace the files of an earlier run.
    on_progress : callable
        Called a few times a second while the run is on.
    on_note : callable
        Called with each line that the user should read; by default they are logged as warnings.

    Returns
    -------
    Run

    Raises
    ------
    LivePTVError
        Before anything is started: for settings, models or files that cannot be used. What fails later is in
        `Run.failures`, and what was measured until then is in the file.
    """
    wanted = settings if isinstance(settings, Experiment) else experiment(settings)
    changes = {"output": None if output is None else Path(output), "overwrite": overwrite or None}
    wanted = revised(wanted, run=changes)
    return _ended(
        run_experiment(wanted, RunFiles.beside(wanted.run.output), on_update=on_progress, on_note=on_note)
    )


def _ended(outcome: RunOutcome) -> Run:
    return Run(
        ok=outcome.result.ok and outcome.result.started,
        reason=outcome.result.reason,
        failures=outcome.result.failures,
        frames=outcome.frames,
        frames_lost=outcome.account.total_lost,
        tracks=outcome.files.tracks,
        report=None if outcome.report is None else outcome.report.page,
    )
