"""Figures of the flow over the cross-section and of the detector's errors (Franchini & Krevor, Figs. 10 to 12)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from liveptv.reports.flow_results import LocationErrors, SectionField
from liveptv.reports.look import INK, ONE, QUIET, TWO, hatch_empty

FloatArray = npt.NDArray[np.float64]

AXES = ("x", "y", "z")
SPEED_MAP, ERROR_MAP, DIFFERENCE_MAP = "plasma", "viridis", "RdBu_r"
DEPTH_BINS = 24  # of the medians over depth; fewer hide how fast errors grow at the ends of the range
FEWEST = 3  # trajectories in a bin for which a median is drawn


def field_figure(section: SectionField) -> Figure:
    """Velocity along x over the cross-section, its standard error, and its difference from the laminar flow."""
    field = section.field
    panels = [
        ("velocity along x (µm/s)", field.velocity_um_s, SPEED_MAP),
        ("standard error (µm/s)", field.standard_error_um_s, ERROR_MAP),
    ]
    if section.theory_um_s is not None:
        panels.append(
            ("measured minus laminar flow (µm/s)", field.velocity_um_s - section.theory_um_s, DIFFERENCE_MAP)
        )
    figure = Figure(figsize=(3.6 * len(panels), 4.6), dpi=130, layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for axes, (name, values, colours) in zip(all_axes, panels, strict=True):
        drawn = axes.pcolormesh(
            field.b_edges_um, field.a_edges_um, values, cmap=colours, norm=_norm(values, colours)
        )
        hatch_empty(axes)
        axes.set(xlabel="y (µm)", title=name)
        figure.colorbar(drawn, ax=axes, shrink=0.9)
    all_axes[0].set_ylabel("height in the channel (µm)")
    return figure


def errors_figure(errors: LocationErrors) -> Figure:
    """Error along each axis over depth: a point per trajectory, larger for longer ones, with the medians."""
    found = errors.residuals
    shown = _axes_with_values(found.error_um)
    figure = Figure(figsize=(3.6 * len(shown), 4.2), dpi=130, layout="constrained")
    size = 3.0 + 22.0 * found.displacements / found.displacements.max()
    depth = found.depth_um
    across = depth if np.isfinite(depth).any() else np.arange(depth.size, dtype=np.float64)
    for axes, axis in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown, strict=True):
        axes.scatter(across, found.error_um[axis], s=size, c=ONE, alpha=0.25, lw=0, label="one trajectory")
        middle, measured, stated = _by_depth(across, found.error_um[axis], found.stated_um[axis])
        axes.plot(middle, measured, color=INK, label="median")
        axes.plot(middle, stated, color=TWO, ls="--", label="median of the standard errors")
        top = float(np.nanpercentile(found.error_um[axis], 99))
        axes.set_ylim(0, 1.25 * max(top, float(np.nanmax(stated, initial=0.0))))
        label = "depth z (µm)" if across is depth else "number of the trajectory"
        axes.set(xlabel=label, ylabel=f"error of {AXES[axis]} (µm)")
        axes.grid(visible=True, alpha=0.25)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def neighbours_figure(errors: LocationErrors) -> Figure:
    """Error along each axis over the position of the nearest neighbour in the image."""
    shown = _axes_with_values(errors.map_um.reshape(len(AXES), -1))
    figure = Figure(figsize=(3.9 * max(len(shown), 1), 4.1), dpi=130, layout="constrained")
    if not shown:
        figure.text(0.5, 0.5, "no neighbours near enough", ha="center", va="center", color=QUIET, fontsize=14)
        return figure
    for axes, axis in zip(np.atleast_1d(figure.subplots(1, len(shown), sharey=True)), shown, strict=True):
        values = errors.map_um[axis]
        drawn = axes.pcolormesh(
            errors.edges_um, errors.edges_um, values, cmap=ERROR_MAP, norm=_norm(values, "")
        )
        hatch_empty(axes)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        axes.set(xlabel="x of the neighbour (µm)", title=f"error of {AXES[axis]} (µm)")
        figure.colorbar(drawn, ax=axes, shrink=0.9)
    figure.axes[0].set_ylabel("y of the neighbour (µm)")
    return figure


def _axes_with_values(values: FloatArray) -> list[int]:
    return [axis for axis in range(len(AXES)) if np.isfinite(values[axis]).any()]


def _norm(values: FloatArray, colours: str) -> Normalize:
    known = values[np.isfinite(values)]
    if colours == DIFFERENCE_MAP:
        reach = float(np.percentile(np.abs(known), 98)) if known.size else 1.0
        return TwoSlopeNorm(0.0, -max(reach, 1e-9), max(reach, 1e-9))
    low, high = np.percentile(known, (1, 99)) if known.size else (0.0, 1.0)
    return Normalize(float(low), max(float(high), float(low) + 1e-9))


def _by_depth(depth: FloatArray, *columns: FloatArray) -> tuple[FloatArray, ...]:
    """Middles of bins of depth, and the medians of each column in them."""
    edges = np.linspace(depth.min(), depth.max() + 1e-9, DEPTH_BINS + 1)
    which = np.searchsorted(edges, depth, side="right") - 1
    used = [index for index in range(DEPTH_BINS) if np.count_nonzero(which == index) >= FEWEST]
    middle = np.array([(edges[index] + edges[index + 1]) / 2 for index in used])
    return middle, *(np.array([np.median(c[which == index]) for index in used]) for c in columns)
