"""Depth scale, focal surface and walk from particles at rest whose images were fitted freely.

A particle b at rest at the height h_b, seen with the focus at F, has the local depth zeta and place x' with

    F + s zeta = h_b + S(u, v)                                   (1)
    x' = middle + (I + G s zeta) (x_b - middle) + d s zeta        (2)

with the depth scale s, the focal surface S (0 in the middle) and the walk G of `engines.refine.field`; d is the
sideways drift of a stage along the focus, which is not of the model and left out of it. Positions fitted freely
carry all that the pixels say on s, S, G and d (these only act through x', y' and zeta), so that the linear fits
here are those of the pixels with each particle's own parameters eliminated. What scatters is mostly
not noise but that particles and the model are not quite alike: the scatter between particles is the yardstick, and
each particle is compared with the fit of all others (leave-one-out, by the diagonal of the projection).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.refine.field import SURFACE_DEGREE, monomials

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

TILTS = slice(1, 3)
CURVED = slice(1, 6)
FEWEST_FOR_TILT, FEWEST_FOR_CURVATURE = 6, 12
"""Particles at rest from which tilts, and curvatures as well, are fitted: two for each number."""
LEAST_SPAN = 0.5
"""Range of u and of v that they must span, of the 2 across the longer side: less would extrapolate."""
LEAST_FOCUS_PART = 0.05
"""Part of the model's depth range through which the focus must have moved for a scale or a walk."""
FEWEST_FOR_SCALE, FEWEST_FOR_WALK = 3, 6
"""Particles at rest seen over depth: the scale has one number, the walk with the drift six."""


@dataclass(frozen=True, slots=True, eq=False)
class Resting:
    """Images (N,) of particles at rest: `bead` numbers these from 0; places are local, px from the middle."""

    bead: IntArray
    focus_um: FloatArray
    x_px: FloatArray
    y_px: FloatArray
    zeta_um: FloatArray

    @property
    def beads(self) -> int:
        """How many particles there are."""
        return int(self.bead.max(initial=-1)) + 1

    def mean(self, values: FloatArray) -> FloatArray:
        """The mean of `values` (N,) of each particle."""
        count = np.bincount(self.bead, minlength=self.beads)
        return np.asarray(np.bincount(self.bead, values, self.beads) / np.maximum(count, 1))


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A linear fit: coefficients (K,), their standard errors, and chi-squares of particles left out in turn.

    `before` is that of the old terms, `after` that of the new, both in units of the scatter about the new ones and
    over `count` particles.
    """

    coefficients: FloatArray
    sd: FloatArray
    before: float
    after: float
    count: int

    @property
    def gain(self) -> float:
        """Chi-square that the new terms save on particles left out."""
        return self.before - self.after


def depth_scale(resting: Resting, depth_range_um: float) -> Linear | None:
    """s of (1) from particles seen while the focus moved; None without enough of them."""
    deviation, slope, weight = _slopes(resting, resting.focus_um, resting.zeta_um)
    seen = deviation > LEAST_FOCUS_PART * depth_range_um
    if seen.sum() < FEWEST_FOR_SCALE:
        return None
    # zeta falls by 1 / s for each um of focus
    found = _left_out(
        np.ones((int(seen.sum()), 1)), slope[seen], weight[seen], np.full(int(seen.sum()), -1.0)
    )
    scale = -1.0 / found.coefficients
    return Linear(scale, found.sd * scale**2, found.before, found.after, found.count)


def surface(
    resting: Resting, uv: tuple[FloatArray, FloatArray], scale: float, old_um: FloatArray, wall: IntArray
) -> Linear | None:
    """S of (1), (6,), from where particles on a flat wall seem to be; None without enough of them, well spread.

    `uv` are the places of the particles (B,), `old_um` is S before, `wall` (B,) numbers the wall of each. Where
    there are few particles, only the tilts are fitted and the curvatures stay.
    """
    height = resting.mean(resting.focus_um + scale * resting.zeta_um)
    u, v = uv
    if min(np.ptp(u), np.ptp(v)) < LEAST_SPAN or height.size < FEWEST_FOR_TILT:
        return None
    terms = CURVED if height.size >= FEWEST_FOR_CURVATURE else TILTS
    powers = monomials(u, v, SURFACE_DEGREE)
    walls = np.eye(int(wall.max()) + 1)[wall]
    kept = old_um.copy()
    kept[terms] = 0.0
    design = np.column_stack([powers[:, terms], walls])
    found = _left_out(
        design, height - powers @ kept, np.ones(height.size), powers[:, terms] @ old_um[terms], walls
    )
    new, sd = old_um.copy(), np.zeros(6)
    count = powers[:, terms].shape[1]
    new[terms], sd[terms] = found.coefficients[:count], found.sd[:count]
    return Linear(new, sd, found.before, found.after, found.count)


def walk(resting: Resting, scale: float, depth_range_um: float, old_per_um: FloatArray) -> Linear | None:
    """G of (2), (4,) in rows, from particles seen while the focus moved; None without enough of them."""
    depth = scale * resting.zeta_um
    moved = _slopes(resting, depth, depth)[0]
    seen = moved > LEAST_FOCUS_PART * depth_range_um
    if seen.sum() < FEWEST_FOR_WALK:
        return None
    x, y = resting.mean(resting.x_px)[seen], resting.mean(resting.y_px)[seen]
    slopes = [_slopes(resting, depth, place) for place in (resting.x_px, resting.y_px)]
    zero = np.zeros_like(x)
    one = np.ones_like(x)
    # unknowns: G_xx, G_xy, G_yx, G_yy, and the drift along x and y
    design = np.concatenate(
        [np.column_stack([x, y, zero, zero, one, zero]), np.column_stack([zero, zero, x, y, zero, one])]
    )
    values = np.concatenate([slope[seen] for _, slope, _ in slopes])
    weight = np.concatenate([weight[seen] for *_, weight in slopes])
    drift = design[:, 4:]
    found = _left_out(design, values, weight, design[:, :4] @ old_per_um.ravel(), drift)
    return Linear(found.coefficients[:4], found.sd[:4], found.before, found.after, found.count)


def _slopes(
    resting: Resting, along: FloatArray, values: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """For each particle: the range of `along`, the slope of `values` over it, and its weight (sum of squares)."""
    from_mean = along - resting.mean(along)[resting.bead]
    values_from_mean = values - resting.mean(values)[resting.bead]
    squares = np.bincount(resting.bead, from_mean**2, resting.beads)
    product = np.bincount(resting.bead, from_mean * values_from_mean, resting.beads)
    low, high = np.full(resting.beads, np.inf), np.full(resting.beads, -np.inf)
    np.minimum.at(low, resting.bead, along)
    np.maximum.at(high, resting.bead, along)
    return high - low, np.asarray(product / np.maximum(squares, 1e-30)), np.asarray(squares)


def _left_out(
    design: FloatArray,
    values: FloatArray,
    weight: FloatArray,
    old: FloatArray,
    nuisance: FloatArray | None = None,
) -> Linear:
    """The weighted linear fit of `values` (B,), each left out in turn, and the same with the `old` prediction.

    The columns of `nuisance` are fitted in both.
    """
    root = np.sqrt(weight / weight.mean())
    a, b = design * root[:, None], values * root
    leverage, left, coefficients = _project(a, b)
    free = max(len(b) - design.shape[1], 1)
    # typical scatter, so that one particle that is no bead does not hide a change
    variance = max(float(np.median(left**2)) / 0.4549 * len(b) / free, 1e-18)
    covariance = np.linalg.pinv(a.T @ a) * variance
    after = float((_robust(left / np.maximum(1 - leverage, 1e-3), variance) / variance).sum())
    rest = (values - old) * root
    if nuisance is None:
        before_left = rest
    else:
        leverage, left, _ = _project(nuisance * root[:, None], rest)
        before_left = left / np.maximum(1 - leverage, 1e-3)
    before = float((_robust(before_left, variance) / variance).sum())
    return Linear(coefficients, np.sqrt(np.diagonal(covariance)), before, after, len(b))


def _robust(left: FloatArray, variance: float) -> FloatArray:
    """Squares (N,), from three typical standard deviations of these residuals on as if they were that."""
    limit = 9.0 * max(float(np.median(left**2)) / 0.4549, variance)
    return np.asarray(np.minimum(left**2, limit))


def _project(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Leverages (N,), residuals (N,) and coefficients of the least squares of `b` on `a`, outliers weighed down."""
    weight = np.ones(len(b))
    for _ in range(8):
        root = np.sqrt(weight)
        coefficients = np.linalg.lstsq(a * root[:, None], b * root, rcond=None)[0]
        left = b - a @ coefficients
        scale = 1.4826 * float(np.median(np.abs(left))) + 1e-12
        weight = np.minimum(1.0, 2.0 * scale / np.maximum(np.abs(left), 1e-12))
    q, _ = np.linalg.qr(a * root[:, None])
    leverage = np.clip((q**2).sum(axis=1), 0.0, 1.0)
    return leverage, left, np.asarray(coefficients)
