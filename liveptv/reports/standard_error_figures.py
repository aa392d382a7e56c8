"""Figures that compare errors with the standard errors which the detector states for them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration.evaluation import AxisErrors, pulls
from calibration.matching import AXES, Matched
from liveptv.reports.look import INK, ONE, QUIET

FloatArray = npt.NDArray[np.float64]

RANGE, BINS = 5.0, 50  # standard errors shown to each side; bins of 0.2
NORMAL_TOP = 1 / math.sqrt(2 * math.pi)


def standard_errors_figure(matched: Matched, errors: Mapping[str, AxisErrors]) -> Figure:
    """Histograms of error over standard error, beside the normal distribution that correct ones would have.

    `errors` are the scores of `matched` by axis.
    """
    shown = [axis for axis in AXES if _pulls(matched, axis).size]
    figure = Figure(figsize=(4.0 * max(len(shown), 1), 3.6), dpi=130, layout="constrained")
    for axes, axis in zip(np.atleast_1d(figure.subplots(1, max(len(shown), 1))), shown, strict=True):
        pulls_histogram(axes, matched, axis)
        found = errors[axis]
        axes.set_title(f"{axis}: rms {found.calibration:.2f}, typical {found.calibration_robust:.2f}")
    if shown:
        figure.axes[0].set_ylabel("probability density")
        figure.axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def pulls_histogram(axes: Axes, matched: Matched, axis: str) -> None:
    """Histogram of error over standard error along one axis; values beyond 5 are in the outermost bins."""
    values = _pulls(matched, axis)
    edges = np.linspace(-RANGE, RANGE, BINS + 1)
    density = np.histogram(np.clip(values, -RANGE, RANGE), edges)[0] / (values.size * np.diff(edges))
    axes.stairs(density, edges, fill=True, color=ONE, alpha=0.55, label="measured")
    at = np.linspace(-RANGE, RANGE, 201)
    axes.plot(at, NORMAL_TOP * np.exp(-(at**2) / 2), color=INK, lw=1.2, label="normal distribution")
    beyond = 100 * float((np.abs(values) > RANGE).mean())
    axes.annotate(
        f"beyond ±{RANGE:g}: {beyond:.2g} %", (0.98, 0.95), xycoords="axes fraction",
        ha="right", va="top", fontsize=8, color=QUIET,
    )  # fmt: skip
    axes.set(xlabel=f"error of {axis} / its standard error", xlim=(-RANGE, RANGE))
    axes.set_ylim(0, 1.15 * max(NORMAL_TOP, float(density[1:-1].max())))
    axes.set_axisbelow(True)
    axes.grid(visible=True, alpha=0.25)


def _pulls(matched: Matched, axis: str) -> FloatArray:
    row = AXES.index(axis)
    return pulls(matched.error_um[row], matched.sigma_um[row])
