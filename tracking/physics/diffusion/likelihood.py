"""D and localisation error by maximum likelihood, where positions are less certain than steps are long.

Displacements with the tridiagonal covariance of `covariance` have the likelihood of Michalet & Berglund (Phys. Rev.
E 85, 061916, 2012) and Relich et al. (Phys. Rev. E 93, 042401, 2016); the velocity of a segment is removed by
restricted maximum likelihood (Patterson & Thompson, Biometrika 58, 545, 1971), which counts the degree of freedom
that it costs. The matrices are factorised for all segments at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from tracking.physics.diffusion.covariance import FEW_TRACKS
from tracking.physics.diffusion.segments import Segments

FloatArray = npt.NDArray[np.float64]

STEP = 1e-3  # relative step of the numerical derivatives; their error is its square, 1e-6
TOLERANCE = 1e-6
SMALLEST, MOST = (
    1e-12,
    50.0,
)  # over the first guess, in place of 0, which has no logarithm; and ln of the largest
LEAST_CURVATURE = 1e-6
"""Least eigenvalue of the curvature, each parameter in its own standard error, as exact as the derivatives are.
Below it the displacements tell only a sum of both."""
SMALL_SHARE = 1e-3  # of the first guess, below which derivatives are not taken in proportion to the value


@dataclass(frozen=True, slots=True)
class Likeliest:
    """D, um^2/s, with its standard error, and localisation error, um; NaN where the likelihood has no maximum."""

    um2_s: float
    standard_error_um2_s: float
    localisation_um: float


def log_likelihood(
    moved_um: FloatArray,
    over_s: FloatArray,
    steps: npt.NDArray[np.int64],
    um2_s: float,
    s_um2: FloatArray,
    *,
    drift: bool,
) -> FloatArray:
    """ln L of K segments (K,): displacements `moved_um` and times `over_s` (K, L) of one axis, `s_um2` (K,).

    `drift`: with a velocity of its own in each segment, by restricted maximum likelihood; segments of one
    displacement then say nothing (0). -inf where D and s give no covariance.
    """
    logs, squares, cross, weight = (np.zeros(steps.size) for _ in range(4))
    pivot, d_before, u_before = np.ones(steps.size), np.zeros(steps.size), np.zeros(steps.size)
    possible = np.ones(steps.size, np.bool_)
    for i in range(int(steps.max(initial=0))):
        here = i < steps
        factor = -s_um2 / pivot if i else np.zeros(steps.size)
        fresh = 2.0 * um2_s * over_s[:, i] + 2.0 * s_um2 + factor * s_um2
        possible &= ~here | (fresh > 0)
        pivot = np.where(here & (fresh > 0), fresh, 1.0)
        d = np.where(here, moved_um[:, i] - factor * d_before, 0.0)
        u = np.where(here, over_s[:, i] - factor * u_before, 0.0)
        logs += np.log(pivot)
        squares += d * d / pivot
        cross += d * u / pivot
        weight += u * u / pivot
        d_before, u_before = d, u
    if drift:
        weight = np.maximum(weight, 1e-300)
        found = -0.5 * (logs + np.log(weight) + squares - cross * cross / weight)
        found = np.where(steps > 1, found, 0.0)
    else:
        found = -0.5 * (logs + squares)
    return np.where(possible, found, -np.inf)


def likeliest(
    segments: Segments, axis: int, first_um2_s: float, first_s_um2: float, *, exposure_s: float, drift: bool
) -> Likeliest:
    """The most likely D and localisation variance of one axis, from a first guess.

    The localisation variance of a segment is in proportion to the stated ones (`Segments.noise`). The standard
    error is of the form H^-1 J H^-1 (Huber 1967), J the sum of the squared scores of the tracks: where not all
    tracks have the same D, it says so.
    """
    nothing = Likeliest(math.nan, math.nan, math.nan)
    if segments.steps.size == 0:
        return nothing
    moved, over, steps, noise = segments.moved_um[axis], segments.over_s, segments.steps, segments.noise[axis]
    mean_square = float((moved**2).sum() / (2.0 * steps.sum()))
    if not mean_square > 0:
        return nothing
    scale = np.array(
        [
            first_um2_s if first_um2_s > 0 else mean_square / segments.interval_s,
            first_s_um2 if first_s_um2 > 0 else mean_square,
        ]
    )

    def each(at: FloatArray) -> FloatArray:
        s = at[1] * noise - at[0] * exposure_s / 3.0
        return log_likelihood(moved, over, steps, float(at[0]), s, drift=drift)

    def values(free: FloatArray) -> FloatArray:
        at: FloatArray = scale * (np.exp(np.minimum(free, MOST)) + SMALLEST)
        return at

    def cost(free: FloatArray) -> float:
        return -float(each(values(free)).sum())

    best = minimize(cost, np.zeros(2), method="Nelder-Mead", options={"xatol": TOLERANCE, "fatol": TOLERANCE})
    if not math.isfinite(best.fun):
        return nothing
    found = values(best.x)
    return Likeliest(float(found[0]), _error(each, found, segments, scale), math.sqrt(found[1]))


def _error(
    each: Callable[[FloatArray], FloatArray],
    found: FloatArray,
    segments: Segments,
    scale: FloatArray,
) -> float:
    """Standard error of D at the maximum `found`; NaN where it is at an edge."""
    steps = STEP * np.maximum(found, SMALL_SHARE * scale)
    if (found <= 2 * steps).any():
        return math.nan
    shift = np.diag(steps)
    up, down = ([each(found + sign * row) for row in shift] for sign in (1.0, -1.0))
    middle = float(each(found).sum())
    _, track = np.unique(segments.track, return_inverse=True)
    tracks = int(track.max()) + 1
    score = np.stack([np.bincount(track, (a - b) / (2 * h)) for a, b, h in zip(up, down, steps, strict=True)])
    curve = np.diag(
        [-(a.sum() + b.sum() - 2 * middle) / h**2 for a, b, h in zip(up, down, steps, strict=True)]
    )
    corner = each(found + steps).sum() - up[0].sum() - up[1].sum() + middle
    back = each(found - steps).sum() - down[0].sum() - down[1].sum() + middle
    curve[0, 1] = curve[1, 0] = -(corner + back) / (2 * steps[0] * steps[1])
    if not (np.isfinite(curve).all() and (np.diag(curve) > 0).all()):
        return math.nan
    size = np.sqrt(np.diag(curve))
    if np.linalg.eigvalsh(curve / np.outer(size, size))[0] < LEAST_CURVATURE:
        return math.nan
    inverse = np.linalg.inv(curve)
    if tracks < FEW_TRACKS:
        return math.sqrt(inverse[0, 0])
    spread = inverse @ (score @ score.T) @ inverse
    return math.sqrt(tracks / (tracks - 1) * spread[0, 0])
