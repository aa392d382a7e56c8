"""What reports and `plot()` of the Python interface draw alike: detections, trajectories, a velocity profile."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from liveptv.reports.look import ONE, QUIET, TWO
from liveptv.reports.profile import FlowProfile

FloatArray = npt.NDArray[np.float64]

DEPTH_MAP = "viridis"
SPEED_MAP = "plasma"
MARK = "#ff5a36"
MAX_TRACKS_DRAWN = 1500  # the longest ones; more hide one another and take seconds to draw
DIMMEST, BRIGHTEST = 0.1, 99.9  # percentiles of an image that are black and white
THIN = 512  # pixels along each side from which these are taken
FASTEST = 99.0  # percentile of the colours' scale: a wrong link must not fade all others


def draw_image(axes: Axes, image: npt.NDArray[Any], pixel_size_um: float) -> None:
    """A camera image (H, W) in um from the centre of its first pixel, y downwards."""
    height, width = image.shape
    low, high = np.percentile(
        image[:: max(1, height // THIN), :: max(1, width // THIN)], (DIMMEST, BRIGHTEST)
    )
    half = pixel_size_um / 2
    extent = (-half, width * pixel_size_um - half, height * pixel_size_um - half, -half)
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1), extent=extent, interpolation="nearest")
    axes.set(xlabel="x (µm)", ylabel="y (µm)", xlim=extent[:2], ylim=extent[2:])


def draw_detections(
    axes: Axes, x_um: FloatArray, y_um: FloatArray, z_um: FloatArray, size: float = 130.0, width: float = 1.1
) -> ScalarMappable | None:
    """A circle around each detection, coloured by depth where there is one; returns what the colours mean."""
    style: dict[str, Any] = {"s": size, "linewidths": width, "facecolors": "none"}
    if not np.isfinite(z_um).any():
        axes.scatter(x_um, y_um, edgecolors=MARK, **style)
        return None
    norm = Normalize(float(np.nanmin(z_um)), float(np.nanmax(z_um)))
    colours = ScalarMappable(norm, DEPTH_MAP)
    axes.scatter(x_um, y_um, edgecolors=list(map(tuple, colours.to_rgba(z_um))), **style)
    return colours


def lines_of(track: npt.NDArray[Any], frame: npt.NDArray[Any]) -> tuple[list[npt.NDArray[np.int64]], int]:
    """The rows of the longest tracks of two detections or more, each in order of time, and how many there are."""
    order = np.lexsort((frame, track))
    _, first, count = np.unique(track[order], return_index=True, return_counts=True)
    drawn = np.flatnonzero(count >= 2)
    shown = drawn[np.argsort(count[drawn])[::-1][:MAX_TRACKS_DRAWN]]
    return [order[first[index] : first[index] + count[index]] for index in shown], int(drawn.size)


def title_of(shown: int, all_of_them: int) -> str:
    """How many trajectories are drawn, of how many."""
    return f"{shown} trajectories" + (f" (the longest of {all_of_them})" if all_of_them > shown else "")


def medians(values: FloatArray, lines: list[npt.NDArray[np.int64]]) -> FloatArray:
    """The median of each line's known values; 0 where none is known."""
    known = [values[rows][np.isfinite(values[rows])] for rows in lines]
    return np.array([float(np.median(part)) if part.size else 0.0 for part in known])


def speed_scale(speeds: FloatArray) -> Normalize:
    """Colours from rest to the 99th percentile."""
    return Normalize(0.0, max(float(np.percentile(speeds, FASTEST)), 1e-9))


def draw_lines(
    axes: Axes,
    x_um: FloatArray,
    y_um: FloatArray,
    lines: list[npt.NDArray[np.int64]],
    values: FloatArray | None = None,
    norm: Normalize | None = None,
    colours: str | None = None,
) -> LineCollection:
    """Trajectories in the plane, y downwards, equal scales; one of `values` colours each, where there are any."""
    drawn = LineCollection(
        [np.column_stack((x_um[rows], y_um[rows])) for rows in lines],
        cmap=colours,
        norm=norm,
        linewidths=0.9,
        colors=ONE if values is None else None,
    )
    if values is not None:
        drawn.set_array(values)
    axes.add_collection(drawn)
    axes.autoscale()
    axes.set_aspect("equal")
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    axes.set(xlabel="x (µm)", ylabel="y (µm)")
    return drawn


def draw_profile(axes: Axes, profile: FlowProfile) -> None:
    """Velocity along x over height (over y in 2D): each trajectory, means of bins, and the laminar flow."""
    velocity = profile.tracks.velocity_um_s[0]
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


def _profile_title(profile: FlowProfile) -> str:
    count = profile.tracks.track.size
    if profile.theory is None:
        return f"velocity profile of {count} trajectories"
    if not np.isfinite(profile.deviation):
        return f"velocity profile of {count} trajectories, too few to compare with the laminar flow"
    return f"velocity profile: within {100 * profile.deviation:.1f} % of the laminar flow's maximum"
