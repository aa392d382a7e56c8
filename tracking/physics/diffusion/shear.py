"""What a sheared flow adds to the apparent diffusion along it, and how that is taken away.

A particle that diffuses across the flow takes on another velocity. Along a segment of n displacements over u each,
a velocity that changes with the position along b by the gradient g adds g^2 u^2 D_b n / 2 to D: the excess over the
segment's mean velocity is a random walk. The flow is therefore subtracted where the particle was in each
displacement, by the gradient of a quadratic field that fits the segments' velocities. Positions are uncertain by
sigma_b: that adds a known part to the sums, which is subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tracking.physics.diffusion.covariance import Moments
from tracking.physics.diffusion.drift import SEGMENTS_A_TERM, powers, terms_of
from tracking.physics.diffusion.segments import Segments

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

WORTH_CORRECTING = 0.01
"""Excess over D from which shear is subtracted; below, it changes D by less than this, and the correction is
noise."""
NOT_TO_BE_USED = 0.5
"""What uncertain positions across the flow add to D, over D, from which an axis is not used for the mean D: D along
it is then a small difference of large numbers."""
SURE = 5.0
"""Excess over what the standard errors of the gradients alone would give, from which there is shear. With 1, one in
ten recordings without a flow would be corrected for nothing, which only costs precision."""


@dataclass(frozen=True, slots=True, eq=False)
class Shear:
    """Gradient of the velocity along a by the position along b at each segment, and its variance, (axes, axes, K).

    1/s and 1/s^2. Along the same axis both are 0: that a particle that happens to move forward is further in front
    looks like a gradient.
    """

    gradient: FloatArray
    variance: FloatArray


def known_shear(gradient: FloatArray) -> Shear:
    """Of a flow that is known, (axes, axes, K)."""
    beside = gradient.copy()
    beside[np.arange(len(gradient)), np.arange(len(gradient))] = 0.0
    return Shear(beside, np.zeros_like(beside))


def shear_of(segments: Segments) -> Shear:
    """`gradients` of the segments."""
    return gradients(segments.place_um, segments.moved_um.sum(axis=2), segments.over_s.sum(axis=1))


def gradients(place_um: FloatArray, moved_um: FloatArray, total_s: FloatArray) -> Shear:
    """The gradients of a quadratic field through the velocities of K segments; 0 with too few of them.

    `place_um` and `moved_um` (axes, K) are mean place and displacement of each in its time `total_s` (K,).
    """
    axes, count = place_um.shape
    gradient, variance = np.zeros((2, axes, axes, count))
    if count < SEGMENTS_A_TERM * len(powers(axes)):
        return Shear(gradient, variance)
    middle, width = place_um.mean(axis=1), place_um.std(axis=1)
    width[width == 0] = 1.0
    r = (place_um - middle[:, None]) / width[:, None]
    velocity = moved_um / total_s
    terms = terms_of(place_um, middle, width)
    slopes = np.zeros((axes, *terms.shape))
    for b in range(axes):
        slopes[b, 1 + b] = 1.0 / width[b]
        for at, (i, j) in enumerate(powers(axes)[1 + axes :], start=1 + axes):
            slopes[b, at] = ((i == b) * r[j] + (j == b) * r[i]) / width[b]
    weighted = terms * total_s
    inverse = np.linalg.pinv(weighted @ terms.T)
    known_to = [((inverse @ slope) * slope).sum(axis=0) for slope in slopes]
    for axis in range(axes):
        fitted = inverse @ (weighted @ velocity[axis])
        scatter = float((total_s * (velocity[axis] - fitted @ terms) ** 2).sum()) / (count - len(terms))
        for b in range(axes):
            if b != axis:
                gradient[axis, b] = fitted @ slopes[b]
                variance[axis, b] = scatter * known_to[b]
    return Shear(gradient, variance)


def excess_um2_s(segments: Segments, shear: Shear, um2_s: FloatArray) -> FloatArray:
    """`excess_of` the segments."""
    return excess_of(shear, segments.steps, segments.over_s.sum(axis=1), um2_s)


def excess_of(shear: Shear, steps: IntArray, total_s: FloatArray, um2_s: FloatArray) -> FloatArray:
    """What shear adds to D of each axis (axes,), if D is `um2_s` (axes,), in K segments of so many displacements.

    0 where the gradients are not larger than their standard errors would make them.
    """
    weight = total_s**2 / (2.0 * max(int(steps.sum()), 1))
    d = np.maximum(np.nan_to_num(um2_s), 0.0)
    by_chance = shear.variance @ weight @ d
    excess = shear.gradient**2 @ weight @ d - by_chance
    found: FloatArray = np.where(excess > SURE * by_chance, excess, 0.0)
    return found


def known_well(um2_s: FloatArray, error_um2_s: FloatArray) -> FloatArray:
    """D of each axis (axes,) for `excess_of`: the smallest of those known to half of themselves, if there are any.

    Shear along an axis and errors of depth that last over frames only make D larger, and look like what is asked.
    """
    sure = error_um2_s < um2_s / 2.0
    return np.full_like(um2_s, um2_s[sure].min()) if sure.any() else um2_s


def without_shear(segments: Segments, shear: Shear, chosen: BoolArray) -> Segments:
    """The segments with the flow subtracted along the `chosen` axes (axes,)."""
    away = segments.at_um - segments.place_um[..., None]
    flow = np.einsum("abk,bkl->akl", shear.gradient, away) * segments.over_s
    return replace(segments, moved_um=segments.moved_um - chosen[:, None, None] * flow)


def noise_of_shear(segments: Segments, shear: Shear, localisation_um: FloatArray) -> FloatArray:
    """What errors of the positions add to the sums of squares and of products, (axes, 2, K), by `without_shear`."""
    n = segments.steps.astype(np.float64)
    per_step = segments.over_s.sum(axis=1) / n
    variance = np.einsum("abk,b->ak", shear.gradient**2, localisation_um**2) * per_step**2
    squares = n / 2.0 - 1.0 + 0.5 / n
    products = (n - 1.0) / 4.0 - (2.0 * n - 2.5) / n + (n - 1.0) * (n - 0.5) / n**2
    products[n < 2] = 0.0
    return np.stack([variance * squares, variance * products], axis=1)


def corrected(sums: Moments, noise: FloatArray, chosen: BoolArray) -> Moments:
    """The sums without what errors of the positions have added, along the `chosen` axes."""
    return replace(sums, found=sums.found - chosen[:, None, None] * noise)
