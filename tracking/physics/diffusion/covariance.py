"""D and localisation error from the covariance of successive displacements, exact for short segments with gaps.

The displacements d_i over times u_i of a particle that diffuses with D, moves with a constant velocity, and is seen
with an error of standard deviation sigma during exposures of length e have

    <d_i^2> = 2 D u_i + 2 s,   <d_i d_i+1> = -s,   s = sigma^2 - D e / 3

about the velocity (Berglund, Phys. Rev. E 82, 011917, 2010, with motion blur R = e / (6 dt)). The covariance-based
estimator (Vestergaard, Blainey & Flyvbjerg, Phys. Rev. E 89, 022726, 2014; for gaps: Vestergaard, Phys. Rev. E 94,
022401, 2016) solves these for D and s with the means of both. Here they are solved for the sums over segments, with
the velocity of each segment removed from its displacements and their expected values corrected for that, whatever
the times: both sums are linear in D and s, so that the pooled estimate has no bias for short segments either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tracking.physics.diffusion.segments import Segments
from tracking.physics.diffusion.theory import scatter_of_sums

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEW_TRACKS = 30
"""Below so many tracks the standard error is that of the theory: the scatter between tracks, which includes what
the theory does not know of, is itself only known to 13 % from 30."""
SINGULAR = 1e-6  # determinant over its terms below which D and the error cannot be told apart: rounding


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """What K segments say, linear in D (um^2/s) and s (um^2).

    `found` (axes, 2, K): sums of d_i^2 and d_i d_i+1, um^2. `expected` (2, 2, K): what D and what s contribute to
    each (first axis: the sum; second: D or s). `over_s` (K, L), the times of the displacements; `track` and `steps`
    (K,).
    """

    found: FloatArray
    expected: FloatArray
    over_s: FloatArray
    track: IntArray
    steps: IntArray
    drift: bool

    def of(self, chosen: npt.NDArray[np.bool_]) -> Moments:
        """Those of the segments `chosen` (K,)."""
        return Moments(
            self.found[..., chosen],
            self.expected[..., chosen],
            self.over_s[chosen],
            self.track[chosen],
            self.steps[chosen],
            self.drift,
        )

    def along(self, axes: IntArray) -> Moments:
        """Those along some axes."""
        return replace(self, found=self.found[axes])


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """D, um^2/s, s, um^2, and their covariance for each axis and group: (axes, groups, 2) and (axes, groups, 2, 2).

    `steps` and `tracks` (groups,) are the numbers of displacements and of tracks.
    """

    value: FloatArray
    covariance: FloatArray
    steps: IntArray
    tracks: IntArray

    def where(self, axes: npt.NDArray[np.bool_], other: Estimates) -> Estimates:
        """These along the `axes` (axes,) that are true, those of `other` along the rest."""
        return replace(
            other,
            value=np.where(axes[:, None, None], self.value, other.value),
            covariance=np.where(axes[:, None, None, None], self.covariance, other.covariance),
        )

    @property
    def um2_s(self) -> FloatArray:
        """D (axes, groups)."""
        d: FloatArray = self.value[..., 0]
        return d

    @property
    def standard_error_um2_s(self) -> FloatArray:
        """Standard error of D (axes, groups); NaN where the displacements do not tell it."""
        variance = self.covariance[..., 0, 0]
        error: FloatArray = np.sqrt(np.where(variance >= 0, variance, np.nan))
        return error


def moments(segments: Segments, *, drift: bool = True) -> Moments:
    """The sums of each segment, corrected for the cut of wrong links; `drift`: whether its velocity is removed."""
    d, u, steps = segments.moved_um, segments.over_s, segments.steps
    if drift:
        velocity = d.sum(axis=2) / np.maximum(u.sum(axis=1), 1e-300)
        d = d - velocity[..., None] * u
    found = (
        np.stack([(d * d).sum(axis=2), (d[..., 1:] * d[..., :-1]).sum(axis=2)], axis=1)
        / segments.kept[:, None, None]
    )
    last = np.maximum(steps - 1, 0)
    rows = np.arange(steps.size)
    ends = np.where(steps > 1, u[rows, np.minimum(1, u.shape[1] - 1)] + u[rows, np.maximum(last - 1, 0)], 0.0)
    expected = expected_moments(
        steps,
        u.sum(axis=1),
        (u * u).sum(axis=1),
        (u[:, 1:] * u[:, :-1]).sum(axis=1),
        u[:, 0] + u[rows, last] if steps.size else np.empty(0),
        ends,
        drift=drift,
    )
    return Moments(found, expected, u, segments.track, segments.steps, drift)


def expected_moments(
    steps: IntArray,
    total_s: FloatArray,
    squares_s2: FloatArray,
    products_s2: FloatArray,
    ends_s: FloatArray,
    inner_s: FloatArray,
    *,
    drift: bool,
) -> FloatArray:
    """`Moments.expected` of segments with times u_1 ... u_n, (K,) each.

    `steps` n, `total_s` T, the sum of u_i, `squares_s2` that of u_i^2, `products_s2` that of u_i u_i+1, `ends_s`
    u_1 + u_n, `inner_s` u_2 + u_n-1 (0 for n = 1). With S the covariance of the displacements and P = 1 - u 1'/T,
    which removes the velocity, they are the trace and the sum of the first off-diagonal of P S P'.
    """
    n = steps.astype(np.float64)
    one = np.stack([np.stack([2.0 * total_s, 2.0 * n]), np.stack([np.zeros_like(n), -(n - 1.0)])])
    if not drift:
        return one
    t = np.maximum(total_s, 1e-300)
    removed = np.stack(
        [
            np.stack([2.0 * squares_s2 / t, 2.0 * ends_s / t - 2.0 * squares_s2 / t**2]),
            np.stack([2.0 * products_s2 / t, inner_s / t - 2.0 * products_s2 / t**2]),
        ]
    )
    left: FloatArray = one - removed
    return left


def solve(
    sums: Moments,
    group: IntArray | None = None,
    groups: int = 1,
    *,
    exposure_s: float = 0.0,
    localisation_um: FloatArray | None = None,
    factor: FloatArray | None = None,
) -> Estimates:
    """D and s of each group of segments (`group` (K,) from 0 to `groups` - 1, -1: none; left out: all in one).

    With a known `localisation_um` (axes,) D follows from the squares alone. `factor` (axes, K) is D of a segment
    over the D that is asked for (near a wall). Standard errors are from the scatter between tracks, with fewer than
    30 of them from the theory. A group from which D does not follow is NaN.
    """
    axes = sums.found.shape[0]
    which = np.zeros(sums.track.size, np.int64) if group is None else group
    used = which >= 0
    if not used.all():
        sums, which = sums.of(used), which[used]
        factor = None if factor is None else factor[:, used]
    steps = np.bincount(which, sums.steps, groups).astype(np.int64)
    names, of_name = np.unique(sums.track, return_inverse=True)
    pairs, cluster = np.unique(which * names.size + of_name, return_inverse=True)
    owner = pairs // max(names.size, 1)
    tracks = np.bincount(owner, minlength=groups)
    value = np.full((axes, groups, 2), np.nan)
    covariance = np.full((axes, groups, 2, 2), np.nan)
    few = tracks < FEW_TRACKS
    for axis in range(axes):
        expected, found = sums.expected.copy(), sums.found[axis].copy()
        if localisation_um is not None:
            expected, found = _with_known_error(expected, found, exposure_s, float(localisation_um[axis]))
        if factor is not None:
            expected[:, 0] *= factor[axis]
        value[axis], inverse = _solved(found, expected, which, groups)
        misfit = found - np.einsum("ijk,kj->ik", expected, np.nan_to_num(value[axis])[which])
        of_track = [np.bincount(cluster, row, owner.size) for row in misfit]
        score = np.array(of_track, np.float64)
        products = _summed(score[:, None] * score[None], owner, groups)
        products *= (tracks / np.maximum(tracks - 1, 1))[:, None, None]
        if few.any():
            pooled, _ = _solved(found, expected, np.zeros_like(which), 1)
            d, s = max(float(pooled[0, 0]), 0.0), float(pooled[0, 1])
            if localisation_um is not None:
                s = localisation_um[axis] ** 2 - d * exposure_s / 3.0
            theory = scatter_of_sums(sums.over_s, sums.steps, d, s, drift=sums.drift)
            if localisation_um is not None:
                theory[1] = theory[:, 1] = 0.0
            products[few] = _summed(theory, which, groups)[few]
        covariance[axis] = np.einsum("gij,gjk,glk->gil", inverse, products, inverse)
        if localisation_um is not None:
            value[axis, :, 1] = localisation_um[axis] ** 2 - value[axis, :, 0] * exposure_s / 3.0
    return Estimates(value, covariance, steps, tracks.astype(np.int64))


def _with_known_error(
    expected: FloatArray, found: FloatArray, exposure_s: float, localisation_um: float
) -> tuple[FloatArray, FloatArray]:
    """The squares alone, with the known error removed; the second unknown is made 0."""
    known = np.zeros_like(expected)
    known[0, 0] = expected[0, 0] - exposure_s / 3.0 * expected[0, 1]
    known[1, 1] = 1.0
    rest = np.stack([found[0] - localisation_um**2 * expected[0, 1], np.zeros_like(found[1])])
    return known, rest


def _solved(
    found: FloatArray, expected: FloatArray, which: IntArray, groups: int
) -> tuple[FloatArray, FloatArray]:
    """The solution (groups, 2) of M theta = b for each group, and M^-1; NaN where M is singular."""
    matrix = _summed(expected, which, groups)
    right = np.stack([np.bincount(which, row, groups) for row in found], axis=1)
    inverse = np.full((groups, 2, 2), np.nan)
    scale = np.abs(matrix[:, 0, 0] * matrix[:, 1, 1]) + np.abs(matrix[:, 0, 1] * matrix[:, 1, 0])
    usable = np.abs(np.linalg.det(matrix)) > SINGULAR * scale
    inverse[usable] = np.linalg.inv(matrix[usable])
    return np.einsum("gij,gj->gi", inverse, right), inverse


def _summed(values: FloatArray, which: IntArray, groups: int) -> FloatArray:
    """Sums (groups, 2, 2) of values (2, 2, K) over the members of each group."""
    sums = [[np.bincount(which, values[i, j], groups) for j in range(2)] for i in range(2)]
    stacked: FloatArray = np.array(sums, np.float64).transpose(2, 0, 1)
    return stacked


def localisation_um(um2_s: float, s_um2: float, exposure_s: float) -> float:
    """Standard deviation of the localisation error, um; 0 if the data say less than none."""
    square = s_um2 + um2_s * exposure_s / 3.0
    return math.sqrt(square) if square > 0 else 0.0 if math.isfinite(square) else math.nan
