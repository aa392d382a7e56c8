"""Figures of the fit of the flow in a channel: the velocity along height and y, and where trajectories differ."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from liveptv.reports.look import INK, ONE, QUIET, hatch_empty
from tracking.physics.channel.derived import velocity_over_section
from tracking.physics.channel.fit import ChannelFit
from tracking.physics.channel.misfit import ResidualMap, residual_map
from tracking.physics.channel.model import axes_of
from tracking.physics.channel.parameters import VELOCITY

FloatArray = npt.NDArray[np.float64]

POINTS = 81  # of a drawn profile
BESIDE, ABOVE = (
    0.5,
    0.25,
)  # parts of the range in y, and of the depth, from which a profile's trajectories are
BANDS = 2.0  # standard errors
LEAST_RANGE = 0.01  # of the colours of the map, a part of the maximum velocity


def channel_figure(fit: ChannelFit) -> Figure:
    """Velocity over the height in the middle of the width, over y in the middle of the depth, and the residuals."""
    width, depth = fit.value("width_um"), fit.value("depth_um")
    y, z = fit.expected.place_um
    along = axes_of(fit.theta)[:, 0]
    velocity = along @ fit.tracks.velocity_um_s
    figure = Figure(figsize=(11.4, 4.2), dpi=130, layout="constrained")
    over_z, over_y, over_both = figure.subplots(1, 3)

    heights = np.linspace(0.0, depth, POINTS)
    where = float(np.median(y))  # the image may show a part of the width only
    near = np.abs(y - where) <= BESIDE * max(float(np.ptp(y)), 1e-9) / 2.0
    value, error = velocity_over_section(fit, np.full(POINTS, where), heights)
    over_z.plot(velocity[near], z[near], ".", ms=3, color=QUIET, alpha=0.4, label="trajectories near there")
    over_z.fill_betweenx(heights, value - BANDS * error, value + BANDS * error, color=ONE, alpha=0.35, lw=0)
    over_z.plot(value, heights, color=INK, lw=1.2, label="fit")
    over_z.set(xlabel="velocity (µm/s)", ylabel="height above the floor (µm)", title=f"at y = {where:.0f} µm")
    over_z.set_xlim(_limits(velocity[near], value))

    across = np.linspace(-width / 2.0, width / 2.0, POINTS)
    near = np.abs(z - depth / 2.0) <= ABOVE * depth / 2.0
    value, error = velocity_over_section(fit, across, np.full(POINTS, depth / 2.0))
    over_y.plot(y[near], velocity[near], ".", ms=3, color=QUIET, alpha=0.4)
    over_y.fill_between(across, value - BANDS * error, value + BANDS * error, color=ONE, alpha=0.35, lw=0)
    over_y.plot(across, value, color=INK, lw=1.2)
    over_y.set(xlabel="y from the middle (µm)", ylabel="velocity (µm/s)", title="at half of the depth")
    over_y.set_ylim(_limits(velocity[near], value))
    for axes in (over_z, over_y):
        axes.grid(visible=True, alpha=0.25)
    over_z.legend(frameon=False, fontsize=8)
    _draw_residuals(over_both, residual_map(fit), abs(float(fit.theta[VELOCITY])))
    return figure


def _limits(measured: FloatArray, fitted: FloatArray) -> tuple[float, float]:
    """What is shown of the velocities; the outermost hundredth of the trajectories is out of view: wrong links."""
    low, high = np.percentile(measured, (1, 99)) if measured.size else (0.0, 0.0)
    low, high = min(float(low), float(fitted.min())), max(float(high), float(fitted.max()))
    margin = 0.07 * (high - low or 1.0)
    return low - margin, high + margin


def _draw_residuals(axes: Axes, residuals: ResidualMap, mean_um_s: float) -> None:
    field = residuals.field
    known = np.abs(field.velocity_um_s[np.isfinite(field.velocity_um_s)])
    reach = max(float(known.max(initial=0.0)), LEAST_RANGE * mean_um_s, 1e-9)
    hatch_empty(axes)
    drawn = axes.pcolormesh(
        field.b_edges_um, field.a_edges_um, field.velocity_um_s, cmap="RdBu_r",
        norm=TwoSlopeNorm(0.0, -reach, reach),
    )  # fmt: skip
    for row, column in np.argwhere(residuals.significant):
        y, z = field.b_edges_um[column : column + 2], field.a_edges_um[row : row + 2]
        axes.plot(y[[0, 1, 1, 0, 0]], z[[0, 0, 1, 1, 0]], color=INK, lw=1.2)
    axes.set(xlabel="y from the middle (µm)", ylabel="height above the floor (µm)")
    axes.set_title("trajectories less fit (µm/s)")
    axes.figure.colorbar(drawn, ax=axes, shrink=0.9)
