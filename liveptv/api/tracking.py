"""Trajectories from a table of positions."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liveptv.api.dataframes import detection_table
from liveptv.api.trajectories import TrajectoryView
from liveptv.config import build_experiment
from liveptv.workflows.offline import link_table

if TYPE_CHECKING:
    import pandas as pd


def track(
    detections: pd.DataFrame,
    frame_rate_hz: float,
    *,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    predicted: bool = False,
    flagged: bool = False,
    **settings: Any,
) -> pd.DataFrame:
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
    pandas.DataFrame
        As `TrajectoryView.to_pandas`.

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
