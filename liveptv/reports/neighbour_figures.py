"""Figures of misses, errors and false detections by nearest neighbour (Franchini & Krevor, Figs. 8 and 9)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import binomtest

from calibration.evaluation import within
from calibration.matching import AXES, Matched
from liveptv.reports.look import INK, ONE, QUIET, TWO, plain_log_ticks

FloatArray = npt.NDArray[np.float64]

OF_AXIS = {"x": ONE, "y": TWO, "z": INK}
CONFIDENCE = 0.68  # of the interval of a missed fraction, as wide as one standard error to each side


def distance_figure(matched: Matched, edges_um: Sequence[float]) -> Figure:
    """Missed particles, errors, and false detections in classes of the distance to the nearest particle.

    `edges_um` are the K + 1 edges of the classes; the last may be infinite.
    """
    figure = Figure(figsize=(12.4, 4.0), dpi=130, layout="constrained")
    first, second, third = figure.subplots(1, 3)
    missed_by_distance(first, matched, edges_um)
    errors_by_distance(second, matched, edges_um)
    false_by_distance(third, matched, edges_um)
    names = [_range(low, high) for low, high in pairwise(edges_um)]
    for axes, title, distance in (
        (first, "missed particles", "distance to nearest neighbour (µm)"),
        (second, "errors of the particles found", "distance to nearest neighbour (µm)"),
        (third, "false detections", "distance to nearest true particle (µm)"),
    ):
        axes.set_title(title)
        axes.set_xticks(range(len(names)), names)
        axes.set_xlabel(distance)
        axes.set_axisbelow(True)
        axes.grid(visible=True, axis="y", alpha=0.25)
    return figure


def missed_by_distance(axes: Axes, matched: Matched, edges_um: Sequence[float]) -> None:
    """Missed fraction, %, a bar for each class, with the Wilson (1927) interval and the number of particles."""
    missed, below, above, counts = _missed(matched, edges_um)
    axes.bar(
        range(missed.size), np.nan_to_num(missed), color=ONE,
        yerr=np.nan_to_num((below, above)), ecolor=QUIET, capsize=3,
    )  # fmt: skip
    _note(axes, missed + above, [f"of {count}" for count in counts])
    axes.set_ylim(0, 1.15 * max(1.0, float(np.nanmax(missed + above, initial=0.0))))
    axes.set_ylabel("missed (%)")


def errors_by_distance(axes: Axes, matched: Matched, edges_um: Sequence[float]) -> None:
    """Root mean square errors, um, in classes of the nearest neighbour's distance; a line for each axis."""
    for row, axis in enumerate(AXES if matched.depth else AXES[:2]):
        groups = [
            matched.error_um[row, within(matched.neighbour_um, low, high)] for low, high in pairwise(edges_um)
        ]
        errors = [_rms(group[np.isfinite(group)]) for group in groups]
        axes.plot(range(len(groups)), errors, "o-", ms=4, color=OF_AXIS[axis], label=axis)
    axes.set_yscale("log")
    plain_log_ticks(axes.yaxis)
    axes.set_ylabel("rms error (µm)")
    axes.legend(frameon=False, fontsize=9)


def false_by_distance(axes: Axes, matched: Matched, edges_um: Sequence[float]) -> None:
    """Number of false detections in classes of the distance to the nearest true particle."""
    counts = [int(within(matched.false_um, low, high).sum()) for low, high in pairwise(edges_um)]
    axes.bar(range(len(counts)), counts, color=ONE)
    _note(axes, counts, [f"{count}" for count in counts])
    axes.set(ylabel="false detections", ylim=(0, 1.15 * max(1, *counts)))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _missed(
    matched: Matched, edges_um: Sequence[float]
) -> tuple[FloatArray, FloatArray, FloatArray, list[int]]:
    """Missed fraction, %, how far its interval goes below and above, and the number of particles, by class."""
    rows, counts = [], []
    for low, high in pairwise(edges_um):
        group = matched.found[within(matched.neighbour_um, low, high)]
        counts.append(group.size)
        if not group.size:
            rows.append((math.nan,) * 3)
            continue
        part = float(1 - group.mean())
        ends = binomtest(int((~group).sum()), group.size).proportion_ci(CONFIDENCE, method="wilson")
        rows.append((part, max(part - ends.low, 0.0), max(ends.high - part, 0.0)))
    missed, below, above = 100 * np.array(rows).T
    return missed, below, above, counts


def _note(axes: Axes, heights: Iterable[float], texts: Iterable[str]) -> None:
    """A small text above each of the heights."""
    for place, (height, text) in enumerate(zip(heights, texts, strict=True)):
        if math.isfinite(height):
            axes.annotate(
                text,
                (place, height),
                (0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=QUIET,
            )


def _rms(values: FloatArray) -> float:
    return float(np.sqrt((values**2).mean())) if values.size else math.nan


def _range(low: float, high: float) -> str:
    return f"> {low:g}" if math.isinf(high) else f"{low:g}-{high:g}"
