"""A trajectory file as pandas or xarray tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from liveptv.api.optional import needs
from tracking.trajectories.columns import Trajectories
from tracking.trajectories.file import TrajectoryFile, read_trajectories
from tracking.trajectories.schema import MORE_COLUMNS, ROW_COLUMNS

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes

    from liveptv.api.frames import By, TrackFrame
    from liveptv.api.profiles import Profile


class TrajectoryView:
    """What is in a trajectory file, finished or still growing.

    Parameters
    ----------
    path : str or path
        A file of `liveptv run`, `replay` or `track`, or of `liveptv.run`.

    Raises
    ------
    SourceError
        If there is no such file or it is not a trajectory file; the text says what to do.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with TrajectoryFile(self.path) as file:
            self.attributes: dict[str, Any] = file.attributes
            self._frames = file.frames
            self._events = file.events()
            self.finished: bool = file.finished

    def to_pandas(self, *, predicted: bool = False, flagged: bool = False) -> TrackFrame:
        """The trajectories, one row a particle and frame.

        Parameters
        ----------
        predicted : bool
            Also rows of frames in which the particle was not detected (gaps), with its predicted position.
        flagged : bool
            Also tracks that were never confirmed, or are a second detection of another track's particle.

        Returns
        -------
        TrackFrame
            A pandas data frame; its `plot()` draws it. `track`, `frame`, `time_s`, positions in um, velocities in
            um/s, their standard errors `sigma_*`, and more; docs/files.md has all columns.
        """
        from liveptv.api.frames import TrackFrame

        return TrackFrame(self._read(predicted, flagged).columns())

    def to_xarray(self, *, predicted: bool = False, flagged: bool = False) -> xr.Dataset:
        """The same as `to_pandas`, a variable a column over the dimension `row`, with units and descriptions.

        Raises
        ------
        ConfigurationError
            If xarray is not installed.
        """
        xarray = needs("xarray")
        about = {column.name: column for column in (*ROW_COLUMNS, *MORE_COLUMNS)}
        variables = {}
        for name, values in self._read(predicted, flagged).columns().items():
            column = about.get(name)
            attributes = {} if column is None else {"units": column.unit, "long_name": column.meaning}
            variables[name] = (("row",), values, attributes)
        dataset: xr.Dataset = xarray.Dataset(variables, attrs={"source": self.path.name})
        return dataset.set_coords(["track", "frame", "time_s"])

    def plot(self, by: By = "speed", *, axes: Axes | None = None) -> Axes:
        """Draw the trajectories in the plane, coloured by "speed", "depth" or "time"; returns the axes."""
        from liveptv.api.frames import plot_tracks

        return plot_tracks(self.to_pandas(), by, axes)

    def profile(self) -> Profile:
        """The velocity along x over the height (over y in 2D), with standard errors.

        Raises
        ------
        ConfigurationError
            If no trajectory is long enough.
        """
        from liveptv.api.profiles import Profile

        return Profile(self._read(False, False))

    def frames(self) -> pd.DataFrame:
        """The table of frames: number, time, focus, flow, exposure, rows; one row a frame, empty ones included."""
        import pandas as pd

        names = self._frames.dtype.names or ()
        return pd.DataFrame({name: np.ascontiguousarray(self._frames[name]) for name in names})

    def events(self) -> pd.DataFrame:
        """What happened during the run, in order: `wall_s`, `kind`, `text`, and further fields."""
        import pandas as pd

        return pd.DataFrame(self._events)

    def _read(self, predicted: bool, flagged: bool) -> Trajectories:
        return read_trajectories(self.path, include_predicted=predicted, include_flagged=flagged)

    def __repr__(self) -> str:
        state = "finished" if self.finished else "not finished"
        return f"<TrajectoryView {self.path.name}: {len(self._frames)} frames, {state}>"


def open_trajectories(path: str | os.PathLike[str]) -> TrajectoryView:
    """Open a trajectory file; see `TrajectoryView`.

    Examples
    --------
    >>> rows = liveptv.open_trajectories("run.h5").to_pandas()
    >>> rows.groupby("track")["vx_um_s"].median()
    """
    return TrajectoryView(path)
