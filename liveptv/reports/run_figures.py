"""Figures of a run: a camera image with its detections, the trajectories, the velocity profile."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3DCollection

from liveptv.reports.drawn import (
    SPEED_MAP,
    draw_detections,
    draw_image,
    draw_lines,
    draw_profile,
    lines_of,
    medians,
    speed_scale,
    title_of,
)
from liveptv.reports.look import QUIET
from liveptv.reports.profile import MIN_LENGTH, FlowProfile
from tracking.trajectories.file import Trajectories
from tracking.trajectories.heights import heights_um

FloatArray = npt.NDArray[np.float64]


def frame_figure(
    image: npt.NDArray[Any],
    x_um: FloatArray,
    y_um: FloatArray,
    z_um: FloatArray,
    pixel_size_um: float,
    title: str,
) -> Figure:
    """A camera image (H, W) with a circle around each detection, coloured by depth in 3D."""
    height, width = image.shape
    figure = Figure(figsize=(9.0, 0.9 + 7.4 * height / width), dpi=130)
    tall = figure.get_figheight()
    axes = figure.add_axes((0.08, 0.55 / tall, 0.8, 1 - 0.9 / tall))
    draw_image(axes, image, pixel_size_um)
    colours = draw_detections(axes, x_um, y_um, z_um)
    if colours is not None:
        figure.colorbar(
            colours, cax=axes.inset_axes((1.02, 0, 0.02, 1)), label="depth z above the focal plane (µm)"
        )
    axes.set_title(title)
    return figure


def trajectory_figure(trajectories: Trajectories, *, depth: bool) -> Figure:
    """The trajectories in 3D, or in the plane in 2D, coloured by speed."""
    lines, count = lines_of(trajectories.track, trajectories.frame)
    figure = Figure(figsize=(9.0, 6.0), dpi=130, layout=None if depth else "constrained")
    if not lines:
        return _nothing(figure, "no trajectory has two detections")
    speeds = _speeds_um_s(trajectories, lines)
    norm, title = speed_scale(speeds), title_of(len(lines), count)
    x, y = trajectories.x_um, trajectories.y_um
    label = "speed in the plane (µm/s)"
    if not depth:
        axes = figure.add_subplot()
        drawn = draw_lines(axes, x, y, lines, speeds, norm, SPEED_MAP)
        axes.set_title(title)
        figure.colorbar(drawn, ax=axes, label=label, shrink=0.8, pad=0.02)
        return figure
    z = heights_um(trajectories)
    places = [np.column_stack((x[rows], y[rows], z[rows])) for rows in lines]
    collection = _trajectories_in_space(figure, places, norm, title)
    collection.set_array(speeds)
    figure.colorbar(collection, cax=figure.add_axes((0.9, 0.2, 0.015, 0.6)), label=label)
    return figure


def _speeds_um_s(trajectories: Trajectories, lines: list[npt.NDArray[np.int64]]) -> FloatArray:
    """Speed of each line (L,) in the plane: the median of the tracker's, or, where another program's file has
    none, that from its ends."""
    each = np.hypot(trajectories.vx_um_s, trajectories.vy_um_s)
    speeds = medians(each, lines)
    for number, rows in enumerate(lines):
        if not np.isfinite(each[rows]).any():
            ends = rows[[0, -1]]
            x, y, time = (
                np.ptp(one[ends]) for one in (trajectories.x_um, trajectories.y_um, trajectories.time_s)
            )
            speeds[number] = np.hypot(x, y) / time if time > 0 else 0.0
    return speeds


def _trajectories_in_space(figure: Figure, lines: list[FloatArray], norm: Normalize, title: str) -> Any:
    axes: Any = figure.add_axes((0.0, 0.0, 0.86, 1.0), projection="3d")
    collection = Line3DCollection(lines, cmap=SPEED_MAP, norm=norm, linewidths=0.9)
    axes.add_collection3d(collection, autolim=False)
    points = np.concatenate(lines)
    points = points[np.isfinite(points).all(axis=1)]
    low, high = points.min(axis=0), points.max(axis=0)
    span = np.maximum(high - low, 1.0)
    axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), zlim=(low[2], high[2]))
    axes.set_box_aspect(np.maximum(span / span.max(), 0.25), zoom=0.95)
    axes.set(xlabel="x (µm)", ylabel="y (µm)", zlabel="height (µm)")
    axes.locator_params(axis="y", nbins=4)
    axes.locator_params(axis="z", nbins=5)
    axes.xaxis.labelpad, axes.yaxis.labelpad = 14, 10
    figure.suptitle(title, y=0.96)
    axes.view_init(elev=22, azim=-62)
    return collection


def _nothing(figure: Figure, text: str) -> Figure:
    figure.text(0.5, 0.5, text, ha="center", va="center", color=QUIET, fontsize=14)
    return figure


def profile_figure(profile: FlowProfile) -> Figure:
    """Velocity along x over height (over y in 2D): each trajectory, means of bins, and the laminar flow."""
    figure = Figure(figsize=(7.2, 5.2), dpi=130, layout="constrained")
    if not profile.tracks.track.size:
        return _nothing(figure, f"no trajectory has at least {MIN_LENGTH} detections")
    draw_profile(figure.add_subplot(), profile)
    return figure
