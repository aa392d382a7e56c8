"""Trajectories from a table of positions, or again from a trajectory file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liveptv.api.dataframes import detection_table
from liveptv.api.trajectories import TrajectoryView
from liveptv.config import build_experiment, revised
from liveptv.files import refuse_to_replace
from liveptv.workflows.offline import link_table
from liveptv.workflows.retrack import retrack as track_again
from liveptv.workflows.retrack import settings_for

if TYPE_CHECKING:
    import pandas as pd

    from liveptv.api.frames import TrackFrame


def track(
    detections: pd.DataFrame,
    frame_rate_hz: float,
    *,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    predicted: bool = False,
    flagged: bool = False,
    **settings: Any,
) -> TrackFrame:
    """Link detections into trajectories, by the same tracker as live.

    Parameters
    ----------
    detections : pandas.DataFrame
        As from `liveptv.detect`: `frame`, `x_um`, `y_um`, and where known `z_um` and standard errors `sigma_*_um`.
    frame_rate_hz : float
        Frames per second.
    output : path, optional
        Keeps the trajectory file there (`.h5`).
    overwrite : bool
        Replace `output` if it exists.
    predicted, flagged : bool
        As in `TrajectoryView.to_pandas`.
    **settings
        Fields of `[tracker]`; see docs/settings.md.

    Returns
    -------
    TrackFrame
        As `TrajectoryView.to_pandas`; `tracks.plot()` draws it.

    Raises
    ------
    ConfigurationError
        For a table or a setting that cannot be used.
    SourceError
        For an empty table.
    OutputError
        If `output` exists or cannot be written.

    Examples
    --------
    >>> tracks = liveptv.track(found, frame_rate_hz=20.0)
    """
    table = detection_table(detections)
    with tempfile.TemporaryDirectory(prefix="liveptv-") as folder:
        path = Path(folder) / "tracks.h5" if output is None else Path(output)
        run = {"output": path, "overwrite": overwrite}
        experiment = build_experiment(
            {"run": run, "tracker": {"frame_rate_hz": frame_rate_hz, **settings}}, "track"
        )
        link_table(table, "a table", experiment)
        return TrajectoryView(path).to_pandas(predicted=predicted, flagged=flagged)


def retrack(
    path: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    predicted: bool = False,
    flagged: bool = False,
    **settings: Any,
) -> TrackFrame:
    """Track the detections of a trajectory file again with other settings, without the images.

    Parameters
    ----------
    path : path
        A finished trajectory file. With the settings of its run the result is the same, to the last bit.
    output : path, optional
        Keeps the new trajectory file there (`.h5`).
    overwrite : bool
        Replace `output` if it exists.
    predicted, flagged : bool
        As in `TrajectoryView.to_pandas`.
    **settings
        Fields of `[tracker]` that differ from those of the run; see docs/settings.md.

    Returns
    -------
    TrackFrame
        As `TrajectoryView.to_pandas`; `tracks.plot()` draws it.

    Raises
    ------
    ConfigurationError
        For a setting that cannot be used.
    SourceError
        If the file cannot be read or is not finished.
    OutputError
        If `output` exists or cannot be written.

    Examples
    --------
    >>> tracks = liveptv.retrack("tracks.h5", max_gap_frames=5)
    """
    source = Path(path)
    with tempfile.TemporaryDirectory(prefix="liveptv-") as folder:
        there = Path(folder) / "tracks.h5" if output is None else Path(output)
        refuse_to_replace(there, source)
        experiment = revised(
            settings_for(source), run={"output": there, "overwrite": overwrite}, tracker=dict(settings)
        )
        track_again(source, experiment)
        return TrajectoryView(there).to_pandas(predicted=predicted, flagged=flagged)
