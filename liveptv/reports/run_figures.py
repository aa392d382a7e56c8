"""Figures of a run: a camera image with its detections, the trajectories, the velocity profile."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3DCollection

from liveptv.reports.look import ONE, QUIET, TWO
from liveptv.reports.profile import MIN_LENGTH, FlowProfile
from tracking.trajectories.file import Trajectories
from tracking.trajectories.heights import heights_um

FloatArray = npt.NDArray[np.float64]

DEPTH_MAP = "viridis"
SPEED_MAP = "plasma"
MARK = "#ff5a36"
MAX_TRACKS_DRAWN = 1500  # the longest ones; more hide one another and take seconds to draw


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
    low, high = np.percentile(image[:: max(1, height // 512), :: max(1, width // 512)], (0.1, 99.9))
    half = pixel_size_um / 2
    extent = (-half, width * pixel_size_um - half, height * pixel_size_um - half, -half)
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1), extent=extent, interpolation="nearest")
    depth = np.isfinite(z_um).any()
    style: dict[str, Any] = {"s": 130.0, "linewidths": 1.1, "facecolors": "none"}
    if depth:
        norm = Normalize(float(np.nanmin(z_um)), float(np.nanmax(z_um)))
        colours = ScalarMappable(norm, DEPTH_MAP)
        axes.scatter(x_um, y_um, edgecolors=list(map(tuple, colours.to_rgba(z_um))), **style)
        figure.colorbar(
            colours, cax=axes.inset_axes((1.02, 0, 0.02, 1)), label="depth z above the focal plane (µm)"
        )
    else:
        axes.scatter(x_um, y_um, edgecolors=MARK, **style)
    axes.set(xlabel="x (µm)", ylabel="y (µm)", title=title, xlim=extent[:2], ylim=extent[2:])
    return figure


def trajectory_figure(trajectories: Trajectories, *, depth: bool) -> Figure:
    """The trajectories in 3D, or in the plane in 2D, coloured by speed."""
    order = np.lexsort((trajectories.frame, trajectories.track))
    x, y = trajectories.x_um[order], trajectories.y_um[order]
    z = heights_um(trajectories)[order] if depth else None
    _, first, count = np.unique(trajectories.track[order], return_index=True, return_counts=True)
    drawn = np.flatnonzero(count >= 2)
    shown = drawn[np.argsort(count[drawn])[::-1][:MAX_TRACKS_DRAWN]]
    velocity = np.stack([trajectories.vx_um_s, trajectories.vy_um_s, trajectories.vz_um_s])[:, order]
    plane_speed = np.hypot(velocity[0], velocity[1])
    lines, speeds = [], []
    for index in shown:
        rows = slice(first[index], first[index] + count[index])
        parts = (x[rows], y[rows]) if z is None else (x[rows], y[rows], z[rows])
        lines.append(np.column_stack(parts))
        speeds.append(float(np.nanmedian(plane_speed[rows])) if np.isfinite(plane_speed[rows]).any() else 0.0)
    figure = Figure(figsize=(9.0, 6.0), dpi=130, layout="constrained" if z is None else None)
    if not lines:
        return _nothing(figure, "no trajectory has two detections")
    norm = Normalize(0.0, max(float(np.percentile(speeds, 99)), 1e-9))
    title = f"{len(shown)} trajectories" + (
        f" (the longest of {drawn.size})" if drawn.size > len(shown) else ""
    )
    if z is None:
        axes = figure.add_subplot()
        collection: Any = LineCollection(lines, cmap=SPEED_MAP, norm=norm, linewidths=0.9)
        axes.add_collection(collection)
        axes.autoscale()
        axes.set_aspect("equal")
        axes.invert_yaxis()
        axes.set(xlabel="x (µm)", ylabel="y (µm)", title=title)
    else:
        collection = _trajectories_in_space(figure, lines, norm, title)
    collection.set_array(np.asarray(speeds))
    label = "speed in the plane (µm/s)"
    if z is None:
        figure.colorbar(collection, ax=figure.axes[0], label=label, shrink=0.8, pad=0.02)
    else:
        figure.colorbar(collection, cax=figure.add_axes((0.9, 0.2, 0.015, 0.6)), label=label)
    return figure


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
    velocity = profile.tracks.velocity_um_s[0]
    if not velocity.size:
        return _nothing(figure, f"no trajectory has at least {MIN_LENGTH} detections")
    axes: Axes = figure.add_subplot()
    axes.plot(velocity, profile.position_um, ".", ms=3, color=QUIET, alpha=0.5, label="one trajectory")
    if profile.theory is not None:
        axes.plot(
            profile.theory.velocity_um_s,
            profile.theory.height_um,
            color=TWO,
            ls="--",
            label="laminar flow at the pump's set-point",
        )
    axes.errorbar(
        profile.measured.velocity_um_s,
        profile.measured.height_um,
        xerr=profile.measured.standard_error_um_s,
        fmt="o",
        ms=5,
        color=ONE,
        capsize=2,
        label="mean of a bin ± standard error",
    )
    across = "height in the channel (µm)" if profile.over == "height" else "y (µm)"
    axes.set(xlabel="velocity along x (µm/s)", ylabel=across, title=_profile_title(profile))
    low, high = np.percentile(velocity, (0.5, 99.5))
    room = 0.08 * max(high - low, 1e-9)
    axes.set_xlim(min(low, 0.0) - room, max(high, 0.0) + room)
    if profile.over == "y":
        axes.invert_yaxis()
    axes.grid(visible=True, alpha=0.25)
    axes.legend(loc="best", frameon=False, markerscale=1.5)
    return figure


def _profile_title(profile: FlowProfile) -> str:
    count = profile.tracks.track.size
    if profile.theory is None:
        return f"velocity profile of {count} trajectories"
    if not np.isfinite(profile.deviation):
        return f"velocity profile of {count} trajectories, too few to compare with the laminar flow"
    return f"velocity profile: within {100 * profile.deviation:.1f} % of the laminar flow's maximum"
