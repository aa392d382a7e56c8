"""D from the sums of looks at tracks: its standard error, which axes a sheared flow spoils, and a map."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from tracking.physics.diffusion.covariance import Moments, expected_moments, solve
from tracking.physics.diffusion.shear import WORTH_CORRECTING, excess_of, gradients, known_well
from tracking.physics.live.look_sums import (
    COUNT,
    CROSSED,
    FIRST,
    LAST,
    LAST_BUT_ONE,
    MOVED,
    PLACES,
    PRODUCTS,
    SECOND,
    SQUARES,
    TIMES_PRODUCT,
    TIMES_SQUARED,
    TOTAL,
    WEIGHTED,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

OUTLIER = 5.0
"""Median sums of squares from which one displacement was a wrong link: 5 in 100,000 right segments have more."""
IN_PLANE = 2
DISPLACEMENTS_A_CELL = 600
"""Displacements that a cell of the map has on average: D is then known to about a tenth in each."""
MOST_CELLS = 12
"""Cells along a side at most."""
KNOWN_TO = 1.0 / 3.0
"""Standard error of a cell, over D of all, above which it says too little to be shown."""
FALSE_ALARMS = 0.01
"""Probability that a map has a cell by chance that is said to differ."""


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """Sums of K looks at tracks, with the velocity of each removed; wrong links left out.

    `moments` are those of `tracking.physics.diffusion.covariance`; `place_um`, `moved_um` (axes, K) and `total_s`
    (K,) are mean place, displacement and time of each.
    """

    moments: Moments
    place_um: FloatArray
    moved_um: FloatArray
    total_s: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class LiveDiffusion:
    """D of each axis, um^2/s, and its standard error, (axes,). `sheared` (axes,): what the flow's shear adds to D
    along it, 0 if that is not worth telling. `displacements` is how many there were."""

    um2_s: FloatArray
    standard_error_um2_s: FloatArray
    sheared_um2_s: FloatArray
    displacements: int

    @property
    def used(self) -> BoolArray:
        """Which of x and y count for D in the plane: those that no shear adds to."""
        return np.asarray(self.sheared_um2_s[:IN_PLANE] == 0.0)

    @property
    def in_plane(self) -> tuple[float, float]:
        """D in the plane and its standard error, um^2/s; NaN if a sheared flow leaves none."""
        return mean_of(self.um2_s[:IN_PLANE][self.used], self.standard_error_um2_s[:IN_PLANE][self.used])


@dataclass(frozen=True, slots=True, eq=False)
class LiveMap:
    """D in the plane over the image, (rows, columns) of cells between `x_um` and `y_um`; NaN where too little is
    known. `differs`: cells whose D chance would not give if it were the same everywhere."""

    x_um: FloatArray
    y_um: FloatArray
    um2_s: FloatArray
    standard_error_um2_s: FloatArray
    differs: BoolArray


def looks_of(sums: FloatArray, track: IntArray) -> Looks:
    """Of the rows `sums` (K, FIELDS) of `add_frame`; in 2D, where heights are not known, of x and y."""
    axes = 3 if np.isfinite(sums[:, SQUARES + 2]).all() else IN_PLANE

    def of(field: int) -> FloatArray:
        return sums[:, field : field + axes].T

    n, total = sums[:, COUNT], sums[:, TOTAL]
    v = of(MOVED) / total
    squares = of(SQUARES) - 2 * v * of(WEIGHTED) + v**2 * sums[:, TIMES_SQUARED]
    products = of(PRODUCTS) - v * of(CROSSED) + v**2 * sums[:, TIMES_PRODUCT]
    typical = np.median(squares, axis=1, keepdims=True)
    good = (squares <= OUTLIER * typical * np.maximum(n / np.median(n), 1.0)).all(axis=0)
    expected = expected_moments(
        n.astype(np.int64),
        total,
        sums[:, TIMES_SQUARED],
        sums[:, TIMES_PRODUCT],
        sums[:, FIRST] + sums[:, LAST],
        sums[:, SECOND] + sums[:, LAST_BUT_ONE],
        drift=True,
    )
    longest = int(n.max())
    times = np.where(np.arange(longest) < n[:, None], (total / n)[:, None], 0.0)
    all_of_them = Moments(
        np.stack([squares, products], axis=1), expected, times, track, n.astype(np.int64), drift=True
    )
    return Looks(
        all_of_them.of(good), (of(PLACES) / n)[:, good], of(MOVED)[:, good], total[good]
    )


def diffusion_of_looks(looks: Looks) -> LiveDiffusion:
    """D of each axis, and what shear adds to it.

    Shear: a quadratic field through the velocities of the looks (`tracking.physics.diffusion.shear`). In 2D
    nothing is known of a gradient over the depth.
    """
    found = solve(looks.moments)
    d, error = found.um2_s[:, 0], found.standard_error_um2_s[:, 0]
    shear = gradients(looks.place_um, looks.moved_um, looks.total_s)
    excess = excess_of(shear, looks.moments.steps, looks.total_s, known_well(d, error))
    excess[~(excess > WORTH_CORRECTING * np.abs(d - excess))] = 0.0
    return LiveDiffusion(d, error, excess, int(found.steps[0]))


def along_y(looks: Looks) -> tuple[float, float]:
    """D along y alone and its standard error, um^2/s."""
    found = solve(looks.moments.along(np.array([1])))
    return float(found.um2_s[0, 0]), float(found.standard_error_um2_s[0, 0])


def mapped(looks: Looks, whole: LiveDiffusion) -> LiveMap | None:
    """D in cells over the image, of the axes that are used; None where there are none, or too few displacements."""
    used = np.flatnonzero(whole.used)
    d, _ = whole.in_plane
    x, y = looks.place_um[:IN_PLANE]
    size = np.array([np.ptp(x), np.ptp(y)])
    cells = looks.moments.steps.sum() / DISPLACEMENTS_A_CELL
    if not used.size or not d > 0 or cells < IN_PLANE or not (size > 0).all():
        return None
    number = np.clip(np.round(np.sqrt(cells * size / size[::-1])), 1, MOST_CELLS).astype(np.int64)
    edges = [np.linspace(one.min(), one.max(), count + 1) for one, count in zip((x, y), number, strict=True)]
    column, row = (
        np.minimum(np.searchsorted(edge, one, side="right") - 1, edge.size - 2)
        for edge, one in zip(edges, (x, y), strict=True)
    )
    groups = int(number.prod())
    found = solve(looks.moments.along(used), row * number[0] + column, groups)
    value, error = found.um2_s.mean(axis=0), np.sqrt((found.standard_error_um2_s**2).sum(axis=0)) / used.size
    shown = error < KNOWN_TO * d
    value[~shown] = error[~shown] = np.nan
    limit = norm.isf(FALSE_ALARMS / 2.0 / max(int(shown.sum()), 1))
    differs = shown & (np.abs(np.nan_to_num(value - d)) > limit * np.nan_to_num(error))
    shape = tuple(number[::-1])
    return LiveMap(*edges, value.reshape(shape), error.reshape(shape), differs.reshape(shape))


def mean_of(um2_s: FloatArray, error_um2_s: FloatArray) -> tuple[float, float]:
    """The mean over axes, and its standard error; NaN of none."""
    if not um2_s.size:
        return math.nan, math.nan
    return float(um2_s.mean()), float(np.sqrt((error_um2_s**2).sum()) / um2_s.size)
