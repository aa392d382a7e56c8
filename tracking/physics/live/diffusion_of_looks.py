"""D from the sums of looks at tracks: its standard error, which axes shear or lasting errors spoil, and a map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracking.physics.diffusion.averages import AveragedDiffusion
from tracking.physics.diffusion.covariance import Moments, expected_moments, solve
from tracking.physics.diffusion.lasting import AXES, DEPTH
from tracking.physics.diffusion.plane_map import IN_PLANE, PlaneMap, plane_map
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


def looks_of(sums: FloatArray, track: IntArray) -> Looks:
    """Of the rows `sums` (K, FIELDS) of `add_frame`; in 2D, where heights are not known, of x and y."""
    axes = 3 if np.isfinite(sums[:, SQUARES + 2]).all() else IN_PLANE

    def of(field: int) -> FloatArray:
        return sums[:, field : field + axes].T

    sums = np.asfortranarray(sums)  # each of its columns in one piece
    n, total = sums[:, COUNT], sums[:, TOTAL]
    v = of(MOVED) / total
    squares = of(SQUARES) - 2 * v * of(WEIGHTED) + v**2 * sums[:, TIMES_SQUARED]
    products = of(PRODUCTS) - v * of(CROSSED) + v**2 * sums[:, TIMES_PRODUCT]
    typical = np.median(squares, axis=1, keepdims=True)
    good: BoolArray = np.all(squares <= OUTLIER * typical * np.maximum(n / np.median(n), 1.0), axis=0)
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
    return Looks(all_of_them.of(good), (of(PLACES) / n)[:, good], of(MOVED)[:, good], total[good])


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


@dataclass(frozen=True, slots=True)
class AxisFound:
    """D along an axis and its standard error, um^2/s, NaN where not known.

    `sheared_um2_s` is what the flow's shear adds to it, `frames` over how many of them means are taken as errors
    last over frames, else 1, and `at_most_um2_s` what D is below where they last too long for that, else NaN.
    """

    axis: str
    um2_s: float
    error_um2_s: float
    sheared_um2_s: float = 0.0
    frames: int = 1
    at_most_um2_s: float = math.nan

    @property
    def in_weights_um2_s(self) -> float:
        """D for the weights of velocities, which 0 would spoil: where little is known of it, its standard error;
        where errors that last are not told from it, what it is below, as they act like it in short tracks."""
        if math.isfinite(self.at_most_um2_s):
            return self.at_most_um2_s
        if not math.isfinite(self.error_um2_s):
            return max(self.um2_s, 0.0) if math.isfinite(self.um2_s) else math.nan
        return max(self.um2_s, self.error_um2_s)

    @property
    def counts(self) -> bool:
        """Whether D of the axis is that of the particles."""
        return self.sheared_um2_s == 0.0 and math.isfinite(self.um2_s)


def axes_found(found: LiveDiffusion, means: Sequence[AveragedDiffusion | None]) -> list[AxisFound]:
    """D along x, y and, where longer looks tell it, z; `means` (axes,) is what they say, as far as they do."""
    plane = [
        AxisFound(AXES[axis], d, error, sheared)
        for axis, (d, error, sheared) in enumerate(
            zip(
                found.um2_s.tolist(),
                found.standard_error_um2_s.tolist(),
                found.sheared_um2_s.tolist(),
                strict=True,
            )
        )
    ][:IN_PLANE]
    plane = [_without_lasting(one, found) for one, found in zip(plane, means[:IN_PLANE], strict=True)]
    depth = means[DEPTH]
    return plane if depth is None else [*plane, _from(depth.beside(in_plane(plane)), AXES[DEPTH])]


def _without_lasting(one: AxisFound, means: AveragedDiffusion | None) -> AxisFound:
    """D along an axis in the plane, from means over frames where its errors surely last over them."""
    return _from(means, one.axis) if means is not None and means.lasting and one.counts else one


def _from(means: AveragedDiffusion, axis: str) -> AxisFound:
    if means.at_most:
        return AxisFound(axis, math.nan, math.nan, 0.0, means.block, means.limit_um2_s)
    return AxisFound(axis, means.um2_s, means.standard_error_um2_s, 0.0, means.block)


def in_plane(axes: Sequence[AxisFound]) -> tuple[float, float]:
    """D in the plane and its standard error, um^2/s, of the axes that count; NaN without any."""
    some = [(one.um2_s, one.error_um2_s) for one in axes[:IN_PLANE] if one.counts]
    d, error = np.array(some).reshape(-1, 2).T
    return mean_of(d, error)


def along_y(looks: Looks, means: AveragedDiffusion | None) -> AxisFound:
    """D along y alone; `means` is what longer looks say of it."""
    found = solve(looks.moments.along(np.array([1])))
    one = AxisFound(AXES[1], float(found.um2_s[0, 0]), float(found.standard_error_um2_s[0, 0]))
    return _without_lasting(one, means)


def mapped(looks: Looks, axes: Sequence[AxisFound]) -> PlaneMap | None:
    """D over the image, of the axes that count in the plane and whose errors do not last over frames."""
    used = np.array([one.counts and one.frames == 1 for one in axes[:IN_PLANE]], np.bool_)
    return plane_map(looks.moments, looks.place_um, used)


def mean_of(um2_s: FloatArray, error_um2_s: FloatArray) -> tuple[float, float]:
    """The mean over axes, and its standard error; NaN of none."""
    if not um2_s.size:
        return math.nan, math.nan
    return float(um2_s.mean()), float(np.sqrt((error_um2_s**2).sum()) / um2_s.size)
