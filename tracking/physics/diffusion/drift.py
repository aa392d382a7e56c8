"""Do the particles drift together, or each by itself?

A velocity that is removed from each segment biases nothing where displacements are Brownian steps seen with
independent errors. Where the steps of successive frames are correlated (a compressed video in which particles rest
and jump, an exposure that is longer than a frame), part of the correlated motion counts as velocity, and D comes
out too small. A drift or flow that all particles have in common is removed without that, as a smooth field through
all displacements. Which of the two suits the data is seen from displacements far apart in a track: only a velocity
of its own makes a particle go the same way again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tracking.physics.diffusion.covariance import Moments
from tracking.physics.diffusion.segments import Segments

FloatArray = npt.NDArray[np.float64]

APART = 8
"""Displacements between the two of a pair that tells own velocities: correlations of successive steps are over."""
SEGMENTS_A_TERM = 10  # of the field; with fewer it would follow the segments' scatter
OF_ERROR = 0.5
"""Standard error of what own velocities add to D, over that of D, up to which only the common drift is removed."""
SHORT_SHARE = 0.1
"""Share of the displacements in tracks too short to tell their own velocity, up to which these are left out and
only the common drift is removed. Short tracks are often of wrong links."""
LARGER = 1.2
"""Standard error of D with the common drift removed, over that with the velocity of each segment removed, from
which some particles do not drift with the others."""
MOST_ADDED = 0.02
"""What own velocities may then add to D, over D. It is subtracted from the sums."""
ADDED = 1.5
"""A velocity v adds v^2 dt / 2 to D by the squares of the displacements, and v^2 dt by their products."""
FEWEST_TRACKS = 10  # from whose scatter the standard error of own velocities is known to a quarter


@dataclass(frozen=True, slots=True, eq=False)
class CommonFlow:
    """A velocity along each axis that is a quadratic function of the position along the others.

    Not of the position along the same axis: that a particle that happens to move forward is further in front looks
    like a gradient.
    """

    middle_um: FloatArray
    width_um: FloatArray
    coefficients: FloatArray

    def at(self, place_um: FloatArray) -> FloatArray:
        """The velocity, um/s, at places (axes, ...)."""
        terms = terms_of(place_um, self.middle_um, self.width_um)
        velocity: FloatArray = np.einsum("at,t...->a...", self.coefficients, terms)
        return velocity


def powers(axes: int) -> list[tuple[int, ...]]:
    """The terms of a quadratic function of the position, as the axes whose product each is."""
    linear = [(i,) for i in range(axes)]
    return [(), *linear, *((i, j) for i in range(axes) for j in range(i, axes))]


def terms_of(place_um: FloatArray, middle_um: FloatArray, width_um: FloatArray) -> FloatArray:
    """The terms (T, ...) at places (axes, ...), in the order of `powers`."""
    beside = (slice(None),) + (None,) * (place_um.ndim - 1)
    r = (place_um - middle_um[beside]) / width_um[beside]
    one = np.ones_like(r[0])
    return np.stack([np.prod([one, *(r[i] for i in power)], axis=0) for power in powers(len(r))])


def common_flow(segments: Segments) -> CommonFlow:
    """The field that fits the velocities of all segments best; with few segments, their mean velocity alone."""
    axes, count = segments.place_um.shape
    middle, width = segments.place_um.mean(axis=1), segments.place_um.std(axis=1)
    width[width == 0] = 1.0
    kinds = powers(axes)
    total = segments.over_s.sum(axis=1)
    velocity = segments.moved_um.sum(axis=2) / total
    terms = terms_of(segments.place_um, middle, width)
    found = np.zeros((axes, len(kinds)))
    enough = count >= SEGMENTS_A_TERM * len(kinds)
    for axis in range(axes):
        used = [at for at, power in enumerate(kinds) if not power or (enough and axis not in power)]
        inverse = np.linalg.pinv((terms[used] * total) @ terms[used].T)
        found[axis, used] = inverse @ (terms[used] * total) @ velocity[axis]
    return CommonFlow(middle, width, found)


def without_flow(segments: Segments, flow: CommonFlow) -> Segments:
    """The segments with the flow at the middle of each displacement subtracted."""
    moved = segments.moved_um - flow.at(segments.at_um) * segments.over_s
    return replace(segments, moved_um=np.where(segments.over_s > 0, moved, 0.0))


def own_velocities(segments: Segments) -> tuple[FloatArray, FloatArray]:
    """Variance of the particles' own velocities along each axis, (um/s)^2, and its standard error, (axes,) each.

    From the products of displacements that are at least `APART` apart in long segments, of which the common flow
    has been removed. Infinite where too few tracks are so long.
    """
    over = segments.over_s
    ahead = np.cumsum(over**2, axis=1)[:, :-APART] if over.shape[1] > APART else np.zeros((len(over), 0))
    weight = (over[:, APART:] ** 2 * ahead).sum(axis=1)
    moved = segments.moved_um * over
    first = (
        np.cumsum(moved, axis=2)[..., :-APART] if over.shape[1] > APART else np.zeros((*moved.shape[:2], 0))
    )
    score = (moved[..., APART:] * first).sum(axis=2)
    _, track = np.unique(segments.track, return_inverse=True)
    of_track = np.bincount(track, weight)
    long = of_track > 0
    axes = len(segments.moved_um)
    if long.sum() < FEWEST_TRACKS:
        return np.full(axes, np.inf), np.full(axes, np.inf)
    total = of_track[long].sum()
    each = np.stack([np.bincount(track, row)[long] for row in score])
    variance = each.sum(axis=1) / total
    scatter = each - variance[:, None] * of_track[long]
    return variance, np.sqrt((scatter**2).sum(axis=1)) / total


def drift_together(
    variance: FloatArray, error: FloatArray, interval_s: float, um2_s: FloatArray, error_of_d: FloatArray
) -> bool:
    """Whether own velocities add so little to D, and that so well known, that the common drift alone is removed.

    `variance` and its `error` are those of own velocities, `um2_s` and `error_of_d` D and its standard error; all
    arrays are (axes,).
    """
    known = ADDED * interval_s * error < OF_ERROR * error_of_d
    small = ADDED * interval_s * variance < MOST_ADDED * um2_s
    return bool((known & small).all())


def of_long_tracks(segments: Segments) -> Segments:
    """Those of tracks with more than `APART` displacements: what a shorter one drifts is not known."""
    _, track = np.unique(segments.track, return_inverse=True)
    return segments.of((np.bincount(track, segments.steps) > APART)[track])


def without_own_velocities(sums: Moments, variance: FloatArray) -> Moments:
    """The sums without what own velocities of this variance (axes,), (um/s)^2, add to them."""
    u = sums.over_s
    added = np.stack([(u * u).sum(axis=1), (u[:, 1:] * u[:, :-1]).sum(axis=1)])
    return replace(sums, found=sums.found - variance[:, None, None] * added)
