"""Pictures of how well particles are found and measured, after Figs. 7 to 9 of Franchini & Krevor (2020)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from scipy.stats import binomtest

from calibration.evaluation import COVERED, depth_edges, pulls, within
from calibration.matching import AXES, Matched
from engines.robust_sigma import SIGMA_OF_MAD
from liveptv.reports.calibration_curves import plain_log_ticks
from liveptv.reports.look import BAD, INK, LIGHT, ONE, QUIET, TWO

FloatArray = npt.NDArray[np.float64]

COLOURS = (ONE, TWO, QUIET, LIGHT["good"])
OF_AXIS = {"x": ONE, "y": TWO, "z": INK}
MOST_DOTS = 8000
FEWEST = 5
USUAL = (16.0, 50.0, 84.0)
PULL_RANGE, PULL_BINS = 5.0, 50
NORMAL_TOP = 1 / math.sqrt(2 * math.pi)
MISSED_TICKS = (0, 1, 2, 5, 10, 20, 50, 100)


def depth_picture(matched: Matched) -> Figure:
    """Depth found over true depth, and its error over true depth (Fig. 7)."""
    figure = Figure(figsize=(10.0, 4.2), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    depth_um, error_um = _known(matched, 2)
    every = _every(depth_um)
    left.plot(depth_um[every], (depth_um + error_um)[every], ".", ms=2, alpha=0.4, color=ONE, rasterized=True)
    if depth_um.size:
        ends = [float(depth_um.min()), float(depth_um.max())]
        left.plot(ends, ends, color=INK, lw=0.8)
    left.set(xlabel="true depth z (um)", ylabel="found depth z (um)", title="depth found")
    left.set_aspect("equal", adjustable="datalim")
    left.grid(visible=True, alpha=0.25)
    error_over_depth(right, matched)
    right.set_title("its error")
    return figure


def distance_picture(matched: Matched, edges_um: Sequence[float]) -> Figure:
    """Missed, errors and false detections by the distance of the nearest particle (Figs. 8 and 9)."""
    figure = Figure(figsize=(12.4, 4.0), dpi=130, layout="constrained")
    first, second, third = figure.subplots(1, 3)
    missed_bars(first, matched, edges_um)
    for axis in AXES if matched.depth else AXES[:2]:
        error_by_distance(second, {axis: matched}, edges_um, axis, colour=OF_AXIS[axis])
    second.set_ylabel("error, rms (um)")
    false_by_distance(third, matched, edges_um)
    for axes in (first, second):
        label_distances(axes, [_range(low, high) for low, high in pairwise(edges_um)])
        axes.set_xlabel("nearest neighbour (um)")
    label_distances(third, [_range(low, high) for low, high in pairwise(edges_um)])
    third.set_xlabel("nearest true particle (um)")
    for axes, title in ((first, "missed"), (second, "errors of the others"), (third, "false detections")):
        axes.set_title(title)
    return figure


def recall_picture(matched: Matched) -> Figure:
    """The part of the particles that is found, over their true depth."""
    figure = Figure(figsize=(10.0, 3.4), dpi=130, layout="constrained")
    recall_over_depth(figure.add_subplot(), {"": matched}, depth_edges(matched.position_um[2]))
    return figure


def stated_picture(matched: Matched) -> Figure:
    """Errors over stated standard errors beside the normal distribution that right ones would have."""
    axes_shown = [axis for axis in AXES if _pulls(matched, axis).size]
    figure = Figure(figsize=(4.0 * max(len(axes_shown), 1), 3.6), dpi=130, layout="constrained")
    for axes, axis in zip(
        np.atleast_1d(figure.subplots(1, max(len(axes_shown), 1))), axes_shown, strict=True
    ):
        pulls_histogram(axes, matched, axis)
    if axes_shown:
        figure.axes[0].set_ylabel("part of the particles, per unit")
        figure.axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def missed_by_distance(axes: Axes, found: Mapping[str, Matched], edges_um: Sequence[float]) -> None:
    """Part that is missed, %, in classes of the nearest neighbour's distance; a line for each of `found`.

    With the interval that holds the true part in 68 % of the cases (Wilson 1927).
    """
    top = 2.0
    for colour, (name, matched) in zip(COLOURS, found.items(), strict=False):
        missed, below, above, _ = _missed(matched, edges_um)
        places = np.arange(missed.size)
        axes.errorbar(places, missed, (below, above), fmt="o-", ms=4, capsize=2, color=colour, label=name)
        top = max(top, float(np.nanmax(missed + above, initial=0.0)))
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set_ylim(0, min(130.0, 1.3 * top))
    axes.set_yticks([tick for tick in MISSED_TICKS if tick <= 1.3 * top])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel("missed (%)")
    axes.grid(visible=True, axis="y", alpha=0.25)


def missed_bars(axes: Axes, matched: Matched, edges_um: Sequence[float]) -> None:
    """The same of one detector, as bars, with the number of particles in each class."""
    missed, below, above, counts = _missed(matched, edges_um)
    axes.bar(
        range(missed.size), np.nan_to_num(missed), color=ONE,
        yerr=np.nan_to_num((below, above)), ecolor=QUIET, capsize=3,
    )  # fmt: skip
    _note(axes, missed + above, [f"of {count}" for count in counts])
    axes.set_ylim(0, 1.15 * max(1.0, float(np.nanmax(missed + above, initial=0.0))))
    axes.set_ylabel("missed (%)")
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis="y", alpha=0.25)


def error_by_distance(
    axes: Axes, found: Mapping[str, Matched], edges_um: Sequence[float], axis: str, colour: str | None = None
) -> None:
    """Errors along one axis, rms in um, in classes of the nearest neighbour's distance."""
    row = AXES.index(axis)
    for own, (name, matched) in zip(COLOURS, found.items(), strict=False):
        groups = [
            matched.error_um[row, within(matched.neighbour_um, low, high)] for low, high in pairwise(edges_um)
        ]
        rms = [_rms(group[np.isfinite(group)]) for group in groups]
        axes.plot(range(len(groups)), rms, "o-", ms=4, color=colour or own, label=name)
    axes.set_yscale("log")
    plain_log_ticks(axes.yaxis)
    axes.set_ylabel(f"error in {axis}, rms (um)")
    axes.legend(frameon=False, fontsize=9)
    axes.grid(visible=True, axis="y", alpha=0.25)


def false_by_distance(axes: Axes, matched: Matched, edges_um: Sequence[float]) -> None:
    """Where the false detections are: their number by the distance of the nearest true particle."""
    counts = [int(within(matched.false_um, low, high).sum()) for low, high in pairwise(edges_um)]
    axes.bar(range(len(counts)), counts, color=ONE)
    _note(axes, counts, [f"{count}" for count in counts])
    axes.set(ylabel="false detections", ylim=(0, 1.15 * max(1, *counts)))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis="y", alpha=0.25)


def label_distances(axes: Axes, names: Sequence[str]) -> None:
    """Name the classes of distances along the horizontal axis."""
    axes.set_xticks(range(len(names)), names)


def error_over_depth(axes: Axes, matched: Matched) -> None:
    """Error in depth over true depth: a dot each, and the median and the middle 68 % of a part of the depths."""
    depth_um, error_um = _known(matched, 2)
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
        low, median, high = np.array([np.percentile(parts[index], USUAL) for index in used]).T
        axes.plot(middle, median, color=INK, lw=1.4, label="median")
        axes.plot(middle, low, color=INK, lw=0.9, ls="--", label="16 % and 84 %")
        axes.plot(middle, high, color=INK, lw=0.9, ls="--")
    reach = 1.2 * float(np.percentile(np.abs(error_um), 99)) if error_um.size else 1.0
    axes.set(xlabel="true depth z (um)", ylabel="found less true depth (um)", ylim=(-reach, reach))
    axes.legend(frameon=False, fontsize=8, loc="upper center", ncols=3, markerscale=3)
    axes.grid(visible=True, alpha=0.25)


def recall_over_depth(axes: Axes, found: Mapping[str, Matched], edges_um: FloatArray) -> None:
    """Part that is found, %, between successive depths, and half of the largest of them."""
    middle = 0.5 * (edges_um[1:] + edges_um[:-1])
    for colour, (name, matched) in zip(COLOURS, found.items(), strict=False):
        depth_um = matched.position_um[2]
        groups = [matched.found[within(depth_um, low, high)] for low, high in pairwise(edges_um)]
        recall = np.array([100 * group.mean() if group.size else math.nan for group in groups])
        axes.plot(middle, recall, "o-", ms=3, color=colour, label=name)
        if len(found) == 1 and np.nanmax(recall, initial=0.0) > 0:
            half = COVERED * float(np.nanmax(recall))
            axes.axhline(half, color=BAD, lw=0.9, ls="--")
            axes.annotate(
                "half of the largest", (middle[0], half), (0, 3), textcoords="offset points",
                color=BAD, fontsize=8,
            )  # fmt: skip
    axes.set(xlabel="true depth z (um)", ylabel="found (%)", ylim=(0, 103))
    axes.grid(visible=True, alpha=0.25)


def pulls_histogram(axes: Axes, matched: Matched, axis: str) -> None:
    """Error over stated standard error along one axis; what is beyond 5 is in the outermost bins."""
    values = _pulls(matched, axis)
    edges = np.linspace(-PULL_RANGE, PULL_RANGE, PULL_BINS + 1)
    inside = np.clip(values, -PULL_RANGE, PULL_RANGE)
    density = np.histogram(inside, edges)[0] / (values.size * np.diff(edges))
    axes.stairs(density, edges, fill=True, color=ONE, alpha=0.55, label="found")
    at = np.linspace(-PULL_RANGE, PULL_RANGE, 201)
    axes.plot(at, NORMAL_TOP * np.exp(-(at**2) / 2), color=INK, lw=1.2, label="normal distribution")
    usual = SIGMA_OF_MAD * float(np.median(np.abs(values)))
    beyond = 100 * float((np.abs(values) > PULL_RANGE).mean())
    axes.annotate(
        f"beyond {PULL_RANGE:g}: {beyond:.2g} %", (0.98, 0.95), xycoords="axes fraction",
        ha="right", va="top", fontsize=8, color=QUIET,
    )  # fmt: skip
    axes.set(xlabel=f"error of {axis} / its stated standard error", xlim=(-PULL_RANGE, PULL_RANGE))
    axes.set_ylim(0, 1.15 * max(NORMAL_TOP, float(density[1:-1].max())))
    axes.set_title(f"{axis}: rms {_rms(values):.2f}, usual {usual:.2f}")
    axes.set_axisbelow(True)
    axes.grid(visible=True, alpha=0.25)


def _missed(
    matched: Matched, edges_um: Sequence[float]
) -> tuple[FloatArray, FloatArray, FloatArray, list[int]]:
    """Part that is missed, %, how far its 68 % interval goes below and above, and of how many, for each class."""
    rows, counts = [], []
    for low, high in pairwise(edges_um):
        group = matched.found[within(matched.neighbour_um, low, high)]
        counts.append(group.size)
        if not group.size:
            rows.append((math.nan,) * 3)
            continue
        part = float(1 - group.mean())
        ends = binomtest(int((~group).sum()), group.size).proportion_ci(0.68, method="wilson")
        rows.append((part, max(part - ends.low, 0.0), max(ends.high - part, 0.0)))
    missed, below, above = 100 * np.array(rows).T
    return missed, below, above, counts


def _known(matched: Matched, row: int) -> tuple[FloatArray, FloatArray]:
    """True positions and errors along one axis of the particles that were found."""
    known = np.isfinite(matched.error_um[row])
    return matched.position_um[row, known], matched.error_um[row, known]


def _pulls(matched: Matched, axis: str) -> FloatArray:
    row = AXES.index(axis)
    return pulls(matched.error_um[row], matched.sigma_um[row])


def _every(values: FloatArray) -> slice:
    return slice(None, None, max(1, -(-values.size // MOST_DOTS)))


def _rms(values: FloatArray) -> float:
    return float(np.sqrt((values**2).mean())) if values.size else math.nan


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


def _range(low: float, high: float) -> str:
    return f"> {low:g}" if math.isinf(high) else f"{low:g}-{high:g}"
