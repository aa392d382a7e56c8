"""Figures of depths found, of their errors and of recall over the true depth (Franchini & Krevor, Fig. 7)."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration.evaluation import COVERED, depth_edges, within
from calibration.matching import Matched
from liveptv.reports.look import BAD, INK, ONE

FloatArray = npt.NDArray[np.float64]

MOST_DOTS = 8000  # particles drawn; more only thicken the cloud and the file
FEWEST = 5  # particles in a part of the depths for which percentiles are drawn
PERCENTILES = (16.0, 50.0, 84.0)  # median, and one standard deviation to each side if errors are Gaussian


def depth_figure(matched: Matched) -> Figure:
    """Depth found over true depth, and its error over true depth."""
    figure = Figure(figsize=(10.0, 4.2), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    depth_um, error_um = _known(matched)
    every = _every(depth_um)
    left.plot(depth_um[every], (depth_um + error_um)[every], ".", ms=2, alpha=0.4, color=ONE, rasterized=True)
    if depth_um.size:
        ends = [float(depth_um.min()), float(depth_um.max())]
        left.plot(ends, ends, color=INK, lw=0.8)
    left.set(xlabel="true depth z (µm)", ylabel="depth z found (µm)", title="depth")
    left.set_aspect("equal", adjustable="datalim")
    left.grid(visible=True, alpha=0.25)
    error_over_depth(right, matched)
    right.set_title("error of the depth")
    return figure


def recall_figure(matched: Matched) -> Figure:
    """Recall over true depth."""
    figure = Figure(figsize=(10.0, 3.4), dpi=130, layout="constrained")
    recall_over_depth(figure.add_subplot(), matched, depth_edges(matched.position_um[2]))
    return figure


def error_over_depth(axes: Axes, matched: Matched) -> None:
    """Error in depth over true depth: a dot per particle, and median and percentiles in parts of the depths."""
    depth_um, error_um = _known(matched)
    every = _every(depth_um)
    axes.plot(
        depth_um[every],
        error_um[every],
        ".",
        ms=2,
        alpha=0.3,
        color=ONE,
        rasterized=True,
        label="one particle",
    )
    edges = depth_edges(matched.position_um[2])
    parts = [error_um[within(depth_um, low, high)] for low, high in pairwise(edges)]
    used = [index for index, part in enumerate(parts) if part.size >= FEWEST]
    if used:
        middle = 0.5 * (edges[1:] + edges[:-1])[used]
        low, median, high = np.array([np.percentile(parts[index], PERCENTILES) for index in used]).T
        axes.plot(middle, median, color=INK, lw=1.4, label="median")
        axes.plot(middle, low, color=INK, lw=0.9, ls="--", label="16th, 84th percentile")
        axes.plot(middle, high, color=INK, lw=0.9, ls="--")
    reach = 1.2 * float(np.percentile(np.abs(error_um), 99)) if error_um.size else 1.0
    axes.set(xlabel="true depth z (µm)", ylabel="found minus true depth (µm)", ylim=(-reach, reach))
    axes.legend(frameon=False, fontsize=8, loc="upper center", ncols=3, markerscale=3)
    axes.grid(visible=True, alpha=0.25)


def recall_over_depth(axes: Axes, matched: Matched, edges_um: FloatArray) -> None:
    """Recall, %, between successive depths `edges_um` (K + 1,), and half of its maximum."""
    middle = 0.5 * (edges_um[1:] + edges_um[:-1])
    groups = [matched.found[within(matched.position_um[2], low, high)] for low, high in pairwise(edges_um)]
    recall = np.array([100 * group.mean() if group.size else math.nan for group in groups])
    axes.plot(middle, recall, "o-", ms=3, color=ONE)
    top = float(np.nanmax(recall, initial=0.0))
    if top > 0:
        axes.axhline(COVERED * top, color=BAD, lw=0.9, ls="--")
        axes.annotate(
            "half of the maximum", (0.5, COVERED * top), (0, 3), xycoords=("axes fraction", "data"),
            textcoords="offset points", color=BAD, fontsize=8, ha="center",
        )  # fmt: skip
    axes.set(xlabel="true depth z (µm)", ylabel="recall (%)", ylim=(0, 103))
    axes.grid(visible=True, alpha=0.25)


def _known(matched: Matched) -> tuple[FloatArray, FloatArray]:
    """True depths and errors in depth of the particles that were found."""
    known = np.isfinite(matched.error_um[2])
    return matched.position_um[2, known], matched.error_um[2, known]


def _every(values: FloatArray) -> slice:
    return slice(None, None, max(1, -(-values.size // MOST_DOTS)))
