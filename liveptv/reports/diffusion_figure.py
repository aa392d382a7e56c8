"""Figures of diffusion: D over the height, D of each track, mean squared displacements."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from liveptv.reports.diffusion_results import DiffusionFindings
from liveptv.reports.look import INK, ONE, QUIET, TWO, hatch_empty
from tracking.physics.diffusion.lasting import AXES
from tracking.physics.diffusion.maps import by_track
from tracking.physics.diffusion.msd import MeanSquaredDisplacements, anomalous_exponent
from tracking.physics.diffusion.plane_map import PlaneMap
from tracking.physics.diffusion.walls import between_walls

FloatArray = npt.NDArray[np.float64]

LONG_ENOUGH = 10  # displacements of a track whose D is drawn; shorter ones show the estimator's own scatter
OUTERMOST = 0.5  # % of the tracks at either end that are not drawn
BINS = 60
VAGUE = 4.0
"""Standard errors of D along z over those in the plane beyond which z is not drawn: it would hide the others."""


def diffusion_figure(findings: DiffusionFindings) -> Figure:
    """D in bins with standard errors, what walls would make of it where they are known, and D of single tracks."""
    figure = Figure(figsize=(10.4, 4.2), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_over_place(left, findings)
    _of_tracks(right, findings)
    return figure


def diffusion_map_figure(over_image: PlaneMap) -> Figure:
    """D over the image, with what it is known to in each cell; framed are those that chance would not give."""
    figure = Figure(figsize=(10.4, 4.2), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, values, name in (
        (left, over_image.um2_s, "D (µm²/s)"),
        (right, over_image.standard_error_um2_s, "standard error (µm²/s)"),
    ):
        drawn = axes.pcolormesh(
            over_image.x_um, over_image.y_um, np.ma.masked_invalid(values), cmap="viridis"
        )
        figure.colorbar(drawn, ax=axes, label=name, shrink=0.8)
        axes.set(xlabel="x (µm)", aspect="equal")
        hatch_empty(axes)
    for row, column in np.argwhere(over_image.differs):
        corner = over_image.x_um[column], over_image.y_um[row]
        size = np.diff(over_image.x_um)[column], np.diff(over_image.y_um)[row]
        left.add_patch(Rectangle(corner, *size, fill=False, edgecolor=INK, lw=1.5))
    left.set_ylabel("y (µm)")
    left.invert_yaxis()  # as in the image
    return figure


def _common(error: FloatArray) -> float:
    """The middle of the standard errors that are known; infinite where none is."""
    known = error[np.isfinite(error)]
    return float(np.median(known)) if known.size else math.inf


def _limits(drawn: list[tuple[FloatArray, FloatArray]], mean: float) -> tuple[float, float]:
    """Bounds of the axis for values and their standard errors, um^2/s: 0, the mean and all points, and the bars but
    for those over twice as long as is common."""
    ends = [np.array([0.0, mean])]
    for value, error in drawn:
        bar = np.where(error <= 2.0 * _common(error), error, 0.0)
        ends += [value - bar, value + bar]
    each = np.concatenate(ends)
    low, high = float(np.nanmin(each)), float(np.nanmax(each))
    room = max(high - low, 1e-9)
    return low - (0.05 * room if low < 0 else 0.0), high + 0.35 * room


def draw_over_place(axes: Axes, findings: DiffusionFindings) -> None:
    """D in bins of the height (of y in 2D) with standard errors, and what walls would make of it."""
    bins, result = findings.map, findings.result
    place = bins.place_um[len(result.axes) - 1]
    axes.errorbar(
        place, bins.in_plane_um2_s, bins.in_plane_standard_error_um2_s, fmt="o", color=ONE, capsize=2,
        label=_plane(findings),
    )  # fmt: skip
    drawn = [(bins.in_plane_um2_s, bins.in_plane_standard_error_um2_s)]
    if len(result.axes) > 2 and not result.axes[2].at_most:
        of_depth = bins.um2_s[2], bins.standard_error_um2_s[2]
        if _common(of_depth[1]) <= VAGUE * _common(drawn[0][1]):
            axes.errorbar(place, *of_depth, fmt="s", mfc="none", color=TWO, capsize=2, label="z")
            drawn.append(of_depth)
    if findings.far is not None and findings.walls_um is not None:
        radius = (findings.settings.particle_diameter_um or 0.0) / 2.0
        floor, ceiling = findings.walls_um
        height = np.linspace(floor + 1.05 * radius, ceiling - 1.05 * radius, 200)
        along, towards = between_walls(height, radius, floor, ceiling)
        axes.plot(
            height,
            findings.far.um2_s * along,
            color=ONE,
            ls="--",
            lw=1,
            label=f"{_plane(findings)} near walls (Faxén)",
        )
        axes.plot(
            height, findings.far.um2_s * towards, color=TWO, ls=":", lw=1, label="z near walls (Brenner)"
        )
    else:
        axes.axhline(result.um2_s, color=INK, lw=1, ls="--", label="all tracks")
    axes.set_ylim(*_limits(drawn, result.um2_s))
    name = "height in the channel" if findings.over == "height" else findings.over
    axes.set(xlabel=f"{name} (µm)", ylabel="D (µm²/s)")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(visible=True, alpha=0.25)


def _plane(findings: DiffusionFindings) -> str:
    """The axes that D in the plane is of, in words: along a sheared flow it is not drawn."""
    axes = findings.result.axes
    return ", ".join(axes[at].axis for at in np.flatnonzero(findings.result.in_plane))


def _of_tracks(axes: Axes, findings: DiffusionFindings) -> None:
    tracks = by_track(findings.result)
    d = tracks.mean_um2_s[tracks.displacements >= LONG_ENOUGH]
    axes.set(xlabel="D of a track (µm²/s)", ylabel="tracks")
    if d.size == 0:
        axes.text(0.5, 0.5, "no track is long enough", transform=axes.transAxes, ha="center", color=QUIET)
        return
    low, high = np.percentile(d, (OUTERMOST, 100 - OUTERMOST))
    axes.hist(
        d, bins=min(BINS, max(8, d.size // 10)), range=(low, max(high, low + 1e-9)), color=ONE, alpha=0.7
    )
    among = findings.result.populations
    kinds = () if among is None else among.kinds
    several = len(kinds) > 1
    marked = [kind.um2_s for kind in kinds] if several else [findings.result.um2_s]
    for number, value in enumerate(marked):
        label = ("kinds found" if several else "all tracks") if number == 0 else None
        axes.axvline(value, color=INK, lw=1, ls="--", label=label)
    axes.legend(frameon=False, fontsize=8)
    axes.grid(visible=True, alpha=0.25)


def draw_msd(axes: Axes, found: MeanSquaredDisplacements) -> None:
    """Mean squared displacements along each axis over the lag, with standard errors, and the power law fitted."""
    lag = np.geomspace(found.lag_s[0], found.lag_s[-1], 100)
    for at, (name, colour) in enumerate(zip(AXES, (ONE, TWO, INK), strict=True)):
        if at >= len(found.msd_um2):
            break
        fitted = anomalous_exponent(found, (at,))
        axes.errorbar(
            found.lag_s, found.msd_um2[at], found.standard_error_um2[at], fmt="o", ms=4, color=colour, capsize=2,
            label=f"{name}: slope {fitted.alpha:.2f} ± {fitted.standard_error_alpha:.2f}",
        )  # fmt: skip
        axes.plot(
            lag, 2 * (fitted.coefficient * lag**fitted.alpha + fitted.offset_um2), color=colour, lw=1, ls="--"
        )
    axes.set(xlabel="lag (s)", ylabel="mean squared displacement (µm²)", xscale="log", yscale="log")
    axes.set_title(f"{found.tracks} tracks")
    axes.legend(frameon=False, fontsize=9)
    axes.grid(visible=True, alpha=0.25)
