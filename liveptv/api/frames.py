"""Detections and trajectories as pandas data frames whose `plot()` draws them in the plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from pandas.plotting import PlotAccessor

from liveptv.api.axes import colour_scale, image_axes
from liveptv.api.images import one_of
from stream.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PIXEL = "pixel_size_um"
By = Literal["speed", "depth", "time"]


class DetectionFrame(pd.DataFrame):
    """A table of detections, a pandas data frame as any other.

    `found.plot(images)` draws a circle around each detection of a frame. With pandas' own arguments (`x=`, `y=`,
    `kind=`), and for `found.plot.scatter(...)` and the like, `plot` is that of pandas.
    """

    @property
    def _constructor(self) -> type[DetectionFrame]:
        return DetectionFrame

    @property
    def plot(self) -> _DetectionPlot:
        """Draw the detections of a frame; see `DetectionFrame`."""
        return _DetectionPlot(self)


class TrackFrame(pd.DataFrame):
    """A table of trajectories, a pandas data frame as any other.

    `tracks.plot()` draws them in the plane, coloured by speed, depth or time. With pandas' own arguments `plot` is
    that of pandas.
    """

    @property
    def _constructor(self) -> type[TrackFrame]:
        return TrackFrame

    @property
    def plot(self) -> _TrackPlot:
        """Draw the trajectories; see `TrackFrame`."""
        return _TrackPlot(self)


class _DetectionPlot(PlotAccessor):
    def __call__(
        self,
        images: Any = None,
        *,
        frame: int | None = None,
        axes: Axes | None = None,
        pixel_size_um: float | None = None,
        **of_pandas: Any,
    ) -> Any:
        """Draw the detections of a frame as circles, coloured by depth where it is known.

        Parameters
        ----------
        images : array or Recording, optional
            The images (T, H, W), or the one (H, W), to draw them over.
        frame : int, optional
            The frame; left out: the first with a detection.
        axes : matplotlib.axes.Axes, optional
            Where to draw; left out: a new figure.
        pixel_size_um : float, optional
            Of the images; left out: that with which the particles were found.

        Returns
        -------
        matplotlib.axes.Axes
        """
        table: pd.DataFrame = self._parent
        if of_pandas or not {"frame", "x_um", "y_um"} <= set(table.columns):
            return super().__call__(**of_pandas)
        from liveptv.reports.drawn import draw_detections, draw_image

        if frame is None:
            frame = int(table["frame"].min()) if len(table) else 0
        here = table[table["frame"] == frame]
        x, y = here["x_um"].to_numpy(np.float64), here["y_um"].to_numpy(np.float64)
        z = here["z_um"].to_numpy(np.float64) if "z_um" in here else np.full(len(here), np.nan)
        image = None if images is None else one_of(images, frame)
        shape = (
            image.shape
            if image is not None
            else (np.ptp(y) + 1 if len(y) else 1, np.ptp(x) + 1 if len(x) else 1)
        )
        with image_axes(axes, shape) as drawn:
            if image is not None:
                known = pixel_size_um or getattr(images, PIXEL, None) or table.attrs.get(PIXEL)
                if known is None:
                    raise ConfigurationError("the size of a pixel is not known; give pixel_size_um")
                draw_image(drawn, image, known)
            else:
                drawn.set(xlabel="x (µm)", ylabel="y (µm)", aspect="equal")
                drawn.invert_yaxis()
            colours = draw_detections(drawn, x, y, z, size=80.0, width=1.6)
            if colours is not None:
                colour_scale(drawn, colours, "depth z (µm)")
            drawn.set_title(f"frame {frame}: {len(here)} particles")
        return drawn


class _TrackPlot(PlotAccessor):
    def __call__(self, by: By = "speed", *, axes: Axes | None = None, **of_pandas: Any) -> Any:
        """Draw the trajectories in the plane.

        Parameters
        ----------
        by : {"speed", "depth", "time"}
            What colours a trajectory: its median speed in the plane, depth or time. One colour for all where
            that is not known.
        axes : matplotlib.axes.Axes, optional
            Where to draw; left out: a new figure.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ConfigurationError
            If the table does not have what should colour them.
        """
        table: pd.DataFrame = self._parent
        if of_pandas or not {"track", "frame", "x_um", "y_um"} <= set(table.columns):
            return super().__call__(**of_pandas)
        return plot_tracks(table, by, axes)


def plot_tracks(table: pd.DataFrame, by: By, axes: Axes | None) -> Axes:
    """Draw the trajectories of a table; see `TrackFrame`."""
    from matplotlib.colors import Normalize

    from liveptv.reports.drawn import (
        DEPTH_MAP,
        SPEED_MAP,
        draw_lines,
        lines_of,
        medians,
        speed_scale,
        title_of,
    )

    def column(name: str) -> Any:
        if name not in table:
            raise ConfigurationError(
                f"the table has no column {name!r}; colour the trajectories by another quantity"
            )
        return table[name].to_numpy(np.float64)

    lines, count = lines_of(table["track"].to_numpy(), table["frame"].to_numpy())
    if not lines:
        raise ConfigurationError("no trajectory has two detections; there is nothing to draw")
    if by == "speed":
        each, colours, label = (
            np.hypot(column("vx_um_s"), column("vy_um_s")),
            SPEED_MAP,
            "speed in the plane (µm/s)",
        )
    elif by == "depth":
        each, colours, label = column("z_um"), DEPTH_MAP, "depth z (µm)"
    elif by == "time":
        each, colours, label = column("time_s"), DEPTH_MAP, "middle of the trajectory (s)"
    else:
        raise ConfigurationError(f'trajectories are coloured by "speed", "depth" or "time", not {by!r}')
    values = medians(each, lines) if np.isfinite(each).any() else None
    norm = None
    if values is not None:
        low, high = float(np.min(values)), float(np.max(values))
        norm = speed_scale(values) if by == "speed" else Normalize(low, max(high, low + 1e-9))
    x, y = column("x_um"), column("y_um")
    with image_axes(axes, (np.ptp(y) + 1.0, np.ptp(x) + 1.0)) as drawn:
        collection = draw_lines(drawn, x, y, lines, values, norm, colours)
        if values is not None:
            colour_scale(drawn, collection, label)
        drawn.set_title(title_of(len(lines), count))
    result: Axes = drawn
    return result
