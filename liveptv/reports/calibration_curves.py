"""Figures of the PSF over depth: features and widths (Franchini & Krevor, Fig. 4), and how distinct depths are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration.ambiguity import TOLD_APART
from calibration.focal_planes import FocalPlanes
from calibration.result import Calibration
from liveptv.reports.look import INK, LIGHT, ONE, TWO, plain_log_ticks

FloatArray = npt.NDArray[np.float64]

TRACE = "#8a8a8a"
AVERAGE = INK
ALONG_X, ALONG_Y = ONE, TWO
BAD = "#fdecea"
LIMIT = LIGHT["bad"]


def curves_figure(found: Calibration) -> Figure:
    """Masked signal, local variance and widths over depth: single particles as thin lines, the PSF model on top."""
    curves = found.curves
    figure = Figure(figsize=(10.2, 3.7), dpi=130, layout="constrained")
    first, second, third = figure.subplots(1, 3)
    _feature(first, found, curves.masked_signal, curves.trace_masked_signal, "masked signal")
    _feature(second, found, curves.local_variance, curves.trace_local_variance, "local variance")
    draw_widths(third, found)
    for axes in (first, second):
        _over_depth(axes, found)
    return figure


def draw_widths(axes: Axes, found: Calibration) -> None:
    """Widths of the PSF along x and y over depth, with the focal planes."""
    curves = found.curves
    inside = _within(found, curves.z_um)
    for name, values, colour in (("x", curves.sigma_x_um, ALONG_X), ("y", curves.sigma_y_um, ALONG_Y)):
        axes.plot(curves.z_um[inside], values[inside], color=colour, label=f"along {name}")
    axes.set_title("width of the PSF", pad=20)
    axes.set_ylabel("standard deviation (µm)")
    axes.set_ylim(0, 1.12 * float(np.max(np.r_[curves.sigma_x_um[inside], curves.sigma_y_um[inside]])))
    axes.legend(frameon=False, fontsize=8, loc="best")
    _over_depth(axes, found)


def _over_depth(axes: Axes, found: Calibration) -> None:
    axes.set_xlabel("depth z (µm)")
    axes.set_xlim(found.model.z_min_um, found.model.z_max_um)
    axes.grid(visible=True, alpha=0.25)
    mark_focal_planes(axes, found.focal_planes)


def _feature(axes: Axes, found: Calibration, average: FloatArray, traces: FloatArray, name: str) -> None:
    curves = found.curves
    inside = _within(found, curves.z_um)
    top = float(average[inside].max())
    scaled = scaled_to_average(curves.trace_z_um, traces, curves.z_um, average)
    for depth, values in zip(curves.trace_z_um, scaled, strict=True):
        axes.plot(depth, values / top, color=TRACE, lw=0.4, alpha=0.6)
    axes.plot([], [], color=TRACE, lw=0.8, label=f"{len(scaled)} particles")
    axes.plot(curves.z_um[inside], average[inside] / top, color=AVERAGE, lw=1.6, label="PSF model")
    seen = scaled[_within(found, curves.trace_z_um)] / top
    low, high = (np.percentile(seen, (0.5, 99.5))) if seen.size else (0.0, 1.0)
    axes.set_title(name, pad=20)
    axes.set_ylabel("relative to the PSF model's maximum")
    axes.set_ylim(min(-0.03, 1.1 * low), 1.2 * max(1.0, high))
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def scaled_to_average(
    trace_z_um: FloatArray, traces: FloatArray, z_um: FloatArray, average: FloatArray
) -> FloatArray:
    """Each trace (M, K) divided by the particle's brightness, the least-squares factor to the average (J,).

    The paper scales each trace by its own extremes, which partly are noise.
    """
    out = traces.copy()
    for index, (depth, values) in enumerate(zip(trace_z_um, traces, strict=True)):
        seen = (depth >= z_um[0]) & (depth <= z_um[-1])
        expected = np.interp(depth[seen], z_um, average)
        shared = float(values[seen] @ expected)
        if shared > 0:
            out[index] = values * (float(expected @ expected) / shared)
    return out


def mark_focal_planes(axes: Axes, planes: FocalPlanes) -> None:
    """A dashed line at each focal plane, named above the axes."""
    marks = [("$F_{xz}$", planes.xz_um, ALONG_X), ("$F_{yz}$", planes.yz_um, ALONG_Y)]
    for name, at_um, colour in marks if planes.astigmatic else [("focus", planes.middle_um, AVERAGE)]:
        axes.axvline(at_um, color=colour, ls="--", lw=0.9)
        axes.annotate(
            name,
            (at_um, 1.0),
            (0, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            ha="center",
            va="bottom",
        )


def ambiguity_figure(found: Calibration) -> Figure:
    """How different each depth's image is from the most similar other depth, in sigma of noise, and that depth."""
    ambiguity = found.ambiguity
    inside = _within(found, ambiguity.z_um)
    z_um, sigmas, twin = ambiguity.z_um[inside], ambiguity.sigmas[inside], ambiguity.twin_um[inside]
    figure = Figure(figsize=(9.0, 3.7), dpi=130, layout="constrained")
    first, second = figure.subplots(1, 2)
    low, high = min(TOLD_APART / 2, 0.8 * float(sigmas.min())), 1.3 * float(max(sigmas.max(), 2 * TOLD_APART))
    first.set_yscale("log")
    first.set_ylim(max(low, 0.1), high)
    first.axhspan(max(low, 0.1), TOLD_APART, color=BAD)
    first.axhline(TOLD_APART, color=LIMIT, lw=0.9)
    first.plot(z_um, sigmas, color=AVERAGE)
    plain_log_ticks(first.yaxis)
    first.set(title="distance to the most similar depth", ylabel="difference (sigma of the noise)")
    second.plot(z_um, twin, ".", ms=4, color=AVERAGE)
    second.plot(z_um, z_um, color=TRACE, lw=0.8)
    second.set(title="most similar depth", ylabel="its depth z (µm)")
    for axes in (first, second):
        axes.set_xlabel("depth z (µm)")
        axes.set_xlim(found.model.z_min_um, found.model.z_max_um)
        axes.grid(visible=True, alpha=0.25)
    return figure


def _within(found: Calibration, z_um: FloatArray) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (z_um >= found.model.z_min_um) & (z_um <= found.model.z_max_um)
    return inside
