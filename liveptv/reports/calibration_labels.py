"""Figures of a calibration's labels: residuals, standard errors, places of particles, which were left out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from calibration.result import Calibration
from calibration.surface import FocalSurface
from liveptv.reports.look import INK, ONE, TWO, plain_log_ticks

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

DEPTH_MAP, RESIDUAL_MAP = "viridis", "RdBu_r"
USED, LEFT_OUT = ONE, TWO
AXES_COLOURS = (("x", ONE), ("y", TWO), ("z", INK))
NOT_USED = "#444444"
MARKS = "x+^sDv"
GREY = "#8a8a8a"
LEAST_PERCENT = 0.1  # the axis of residuals is linear below; most particles are explained better than that
BINS = 16


def labels_figure(found: Calibration) -> Figure:
    """Residuals of the particles, standard errors of the labels, apparent against stated focus of the planes."""
    figure = Figure(figsize=(10.2, 3.7), dpi=130, layout="constrained")
    first, second, third = figure.subplots(1, 3)
    _residuals(first, found)
    _standard_errors(second, found)
    _focus(third, found)
    for axes in (first, second, third):
        axes.grid(visible=True, alpha=0.25)
    return figure


def _residuals(axes: Axes, found: Calibration) -> None:
    table = found.particles
    known, used = np.isfinite(table.misfit) & np.isfinite(table.neighbour_px), table.used
    for which, mark, colour, name in ((used, "o", USED, "used"), (~used, "x", LEFT_OUT, "left out")):
        rows = known & which
        if rows.any():
            axes.plot(
                table.neighbour_px[rows],
                100 * table.misfit[rows],
                mark,
                ms=4,
                mew=1,
                color=colour,
                mfc="none",
                label=name,
            )
    axes.set_yscale("symlog", linthresh=LEAST_PERCENT, linscale=0.4)
    axes.set_ylim(-0.3 * LEAST_PERCENT, 2 * max(1.0, 100 * float(np.nanmax(table.misfit, initial=0.0))))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(
        title="residuals of the PSF model",
        xlabel="distance to nearest neighbour (px)",
        ylabel="residual power (%)",
    )
    axes.legend(frameon=False, fontsize=8)


def _standard_errors(axes: Axes, found: Calibration) -> None:
    table = found.particles
    errors = [
        errors[table.used & (errors > 0)] for errors in (table.sigma_x_um, table.sigma_y_um, table.sigma_z_um)
    ]
    every = np.concatenate(errors)
    if not every.size:
        return
    edges = np.geomspace(0.8 * every.min(), 1.25 * every.max(), 2 * BINS).tolist()
    for (name, colour), values in zip(AXES_COLOURS, errors, strict=True):
        axes.hist(values, edges, histtype="stepfilled", color=colour, alpha=0.35)
        axes.hist(
            values, edges, histtype="step", color=colour, label=f"{name}: median {np.median(values):.2g} µm"
        )
    axes.set_xscale("log")
    plain_log_ticks(axes.xaxis)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    axes.set(title="standard error of the labels", xlabel="standard error (µm)", ylabel="particles")
    axes.legend(frameon=False, fontsize=8)


def _focus(axes: Axes, found: Calibration) -> None:
    off_um = found.apparent_focus_um - found.focus_um
    used = found.plane_used
    axes.plot(found.focus_um[used], off_um[used], "o", ms=3, color=USED, label="used")
    if not used.all():
        axes.plot(found.focus_um[~used], off_um[~used], "x", ms=5, color=LEFT_OUT, label="left out")
        axes.legend(frameon=False, fontsize=8)
    axes.axhline(0, color=GREY, lw=0.8)
    axes.set(
        title="focus of each plane",
        xlabel="stated focus position (µm)",
        ylabel="apparent minus stated focus (µm)",
    )


def places_figure(found: Calibration) -> Figure:
    """Where the particles are: used ones coloured by focus, and by distance from their surface if they have one."""
    table, surface = found.particles, found.surface
    panels = 2 if surface is not None and surface.is_surface else 1
    height, width = found.shape
    stacked = width > 1.35 * height
    rows, columns = (panels, 1) if stacked else (1, panels)
    reasons = sorted(table.left_out(), key=lambda reason: -table.left_out()[reason])
    wide = 9.6 / columns
    tall = rows * ((0.8 if columns == 1 else 0.67) * wide * height / width + 0.7)
    figure = Figure(figsize=(9.6, tall + 0.25 * len(reasons)), dpi=130, layout="compressed")
    all_axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    used = table.used
    values = [("focus at which the particle is at z = 0 (µm)", table.z_um[used])]
    if surface is not None and panels == 2:
        extent = (width * found.model.pixel_size_um, height * found.model.pixel_size_um)
        off = table.z_um - surface_height(surface, table.x_um, table.y_um, extent)
        values.append(("distance from the smooth surface (µm)", off[used]))
    for axes, (label, colours) in zip(all_axes, values, strict=True):
        _field(axes, found, reasons)
        map_, norm = (RESIDUAL_MAP, _about_zero(colours)) if axes is not all_axes[0] else (DEPTH_MAP, None)
        drawn = axes.scatter(
            table.x_um[used],
            table.y_um[used],
            c=colours,
            cmap=map_,
            norm=norm,
            s=34,
            clip_on=False,
            lw=0.4,
            edgecolors=NOT_USED,
        )
        figure.colorbar(drawn, ax=axes, label=label, shrink=0.9, extend="neither" if norm is None else "both")
    if reasons:
        handles, names = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower left", frameon=False, fontsize=8)
    return figure


def _field(axes: Axes, found: Calibration, reasons: list[str]) -> None:
    table, pixel = found.particles, found.model.pixel_size_um
    height, width = found.shape
    for mark, reason in zip(MARKS, reasons, strict=False):
        rows = table.reason == reason
        axes.plot(
            table.x_um[rows],
            table.y_um[rows],
            mark,
            ms=6,
            color=NOT_USED,
            mfc="none",
            clip_on=False,
            label=f"{rows.sum()} left out: {reason}",
        )
    axes.set_aspect("equal")
    axes.set(xlabel="x (µm)", ylabel="y (µm)")
    axes.set(xlim=(-pixel / 2, (width - 0.5) * pixel), ylim=((height - 0.5) * pixel, -pixel / 2))


def surface_height(
    surface: FocalSurface, x_um: FloatArray, y_um: FloatArray, extent_um: tuple[float, float]
) -> FloatArray:
    """z of the surface (N,) at positions in an image of this width and height."""
    x, y = x_um - extent_um[0] / 2, y_um - extent_um[1] / 2
    height: FloatArray = (
        surface.height_um
        + surface.tilt_x * x
        + surface.tilt_y * y
        + surface.bend_xx * x * x
        + surface.bend_xy * x * y
        + surface.bend_yy * y * y
    )
    return height


def _about_zero(values: FloatArray) -> Normalize:
    reach = max(float(np.percentile(np.abs(values), 98)), 1e-6) if values.size else 1.0
    return TwoSlopeNorm(0.0, -reach, reach)
