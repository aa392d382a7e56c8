"""Trajectories cut into segments of successive displacements, which the estimators of D work on.

In a segment a particle has one velocity, which is estimated and removed with it: flow, drift of the stage and slow
changes of both take one degree of freedom from each segment, and bias nothing. Gaps of a track are displacements
over a longer time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import erfc, gammainc, gammainccinv, gammaincinv

from stream.errors import ConfigurationError
from tracking.analysis.velocity import grouped_median

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

LONGEST = 16
"""Displacements in a segment. The velocity costs one of them, so that the standard error of D is 3 % larger than
with whole trajectories; in a sheared flow the velocity changes along a segment, and what that adds to D grows with
it."""
OUTLIER = 4.0
"""Standard deviations from which a normal displacement is taken for a wrong link and cuts the trajectory. Of right
ones 6 in 100,000 are beyond, with 0.1 % of the variance, which is corrected (`Segments.kept`). With 3.5 some more
wrong links are found, and 0.6 % is corrected."""
SHAPES = np.linspace(0.6, 2.0, 57)
"""Shapes of the generalised normal distribution exp(-|x|^shape) that displacements may have: 2 is normal, 1 that of
Laplace. Those of particles of several kinds, or in a compressed video in which particles rest and jump, are peaked,
and many right ones are beyond four standard deviations. The limit is where the same 6 in 100,000 are beyond."""
MIDDLE, OUTER = 0.5, 0.9
"""Quantiles of the displacements whose ratio says which shape: up to 5 % of wrong links hardly change them."""
PEAKED = 1.06  # the ratio over that of normal displacements from which they are not taken for normal
MEDIAN_OF_CHI_SQUARE = 0.4549
"""With one degree of freedom: the median of squares over it is their variance, whatever is in the tail."""
LEAST_NOISE = 0.02
"""Bound of a stated variance over the mean one: a detector that states no error at all must not decide alone."""
FEWEST_TO_JUDGE = 10
"""Displacements of a track from which they say how large they are; below, the other tracks do. Without any track
that is so long, nothing is cut."""
LOOSER = 3.0
"""The limit for the squares is larger by so much over the number of displacements, as the median velocity of a few
of them is itself uncertain. Without it 4 % of D is lost with tracks of 8; with 6 a few more wrong links are
kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """K segments of at most L displacements, in order of tracks.

    `track` (K,); `steps` (K,), how many displacements; `moved_um` (axes, K, L), displacements; `at_um` (axes, K,
    L), middles of the two positions; `over_s` (K, L), the time that each took; all 0 beyond `steps`. `place_um`
    (axes, K) is the mean of the middles. `noise` (axes, K) is the stated variance of the positions over its mean, 1
    where none is stated. `kept` (axes,) is the part of the variance that is left after wrong links were cut. `cut`
    is the number of displacements that were taken for wrong links.
    """

    track: IntArray
    steps: IntArray
    moved_um: FloatArray
    at_um: FloatArray
    over_s: FloatArray
    place_um: FloatArray
    noise: FloatArray
    kept: FloatArray
    cut: int

    def of(self, chosen: BoolArray) -> Segments:
        """The segments `chosen` (K,)."""
        return Segments(
            self.track[chosen],
            self.steps[chosen],
            self.moved_um[:, chosen],
            self.at_um[:, chosen],
            self.over_s[chosen],
            self.place_um[:, chosen],
            self.noise[:, chosen],
            self.kept,
            self.cut,
        )

    @property
    def interval_s(self) -> float:
        """Mean time of a displacement; NaN without any."""
        return float(self.over_s.sum() / self.steps.sum()) if self.steps.size else float("nan")


def cut_into_segments(
    track: npt.ArrayLike,
    time_s: npt.ArrayLike,
    position_um: npt.ArrayLike,
    sigma_um: npt.ArrayLike | None = None,
    *,
    longest: int = LONGEST,
    without_outliers: bool = True,
) -> Segments:
    """Cut trajectories into segments of `longest` displacements or a little less; rows (N,) may be in any order.

    `position_um` is (axes, N), `sigma_um` likewise, the stated standard errors; rows with a position that is not
    finite count as missing. Two rows of a track at the same time are an error (`ConfigurationError`), as are
    lengths that differ.
    """
    name, when, where, stated = _checked(track, time_s, position_um, sigma_um)
    step = np.diff(where, axis=1)
    over = np.diff(when)
    same = np.diff(name) == 0
    if (same & (over <= 0)).any():
        at = int(np.flatnonzero(same & (over <= 0))[0])
        raise ConfigurationError(
            f"track {name[at]} has two positions at {when[at]:g} s; give each position a time of its own"
        )
    wrong, kept = np.zeros(same.size, np.bool_), np.ones(len(where))
    if without_outliers and same.any():
        wrong[same], kept = _outlying(name[1:][same], step[:, same], over[same])
    index = np.flatnonzero(same & ~wrong)
    segment, place = _numbered(index, longest)
    count = int(segment[-1]) + 1 if segment.size else 0
    shape = (where.shape[0], count, longest)
    moved, middle, lasted = np.zeros(shape), np.zeros(shape), np.zeros(shape[1:])
    moved[:, segment, place] = step[:, index]
    middle[:, segment, place] = (where[:, index] + where[:, index + 1]) / 2.0
    lasted[segment, place] = over[index]
    steps = np.bincount(segment, minlength=count)
    noise = np.stack([np.bincount(segment, row[index], count) for row in stated]) / np.maximum(steps, 1)
    first = np.concatenate([[0], np.cumsum(steps)[:-1]]).astype(np.int64)
    return Segments(
        name[index[first]] if count else np.empty(0, np.int64),
        steps.astype(np.int64),
        moved,
        middle,
        lasted,
        middle.sum(axis=2) / np.maximum(steps, 1),
        noise,
        kept,
        int(wrong.sum()),
    )


def _checked(
    track: npt.ArrayLike, time_s: npt.ArrayLike, position_um: npt.ArrayLike, sigma_um: npt.ArrayLike | None
) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """Rows with finite positions, ordered by track and time; the last one are relative variances (axes, N)."""
    name = np.asarray(track).astype(np.int64)
    when = np.asarray(time_s, np.float64)
    where = np.atleast_2d(np.asarray(position_um, np.float64))
    stated = (
        np.full(where.shape, np.nan) if sigma_um is None else np.atleast_2d(np.asarray(sigma_um, np.float64))
    )
    if not (name.shape == when.shape == where.shape[1:] and stated.shape == where.shape):
        raise ConfigurationError(
            f"there are {name.size} track numbers, {when.size} times, {where.shape[1]} positions and "
            f"{stated.shape[1]} standard errors; give one of each for every row"
        )
    known = np.isfinite(where).all(axis=0) & np.isfinite(when)
    name, when, where = name[known], when[known], where[:, known]
    order = np.lexsort((when, name))
    variance = stated[:, known][:, order] ** 2
    return name[order], when[order], where[:, order], _relative(variance)


def _relative(variance: FloatArray) -> FloatArray:
    """Stated variances over their mean in each axis, within bounds; 1 in an axis where any is missing."""
    relative = np.ones_like(variance)
    for axis, row in enumerate(variance):
        if row.size and np.isfinite(row).all() and (row > 0).all():
            relative[axis] = np.clip(row / row.mean(), LEAST_NOISE, 1.0 / LEAST_NOISE)
    return relative


def _numbered(index: IntArray, longest: int) -> tuple[IntArray, IntArray]:
    """Segment of each displacement `index` (ascending rows), and its place in it.

    Displacements of successive rows are a run; a run is divided as evenly as it can be.
    """
    if index.size == 0:
        return index, index
    run = np.concatenate([[0], np.cumsum(np.diff(index) > 1)])
    length = np.bincount(run)
    begin = np.concatenate([[0], np.cumsum(length)[:-1]])
    within = np.arange(index.size) - begin[run]
    parts = -(-length // longest)
    part = within * parts[run] // length[run]
    before = np.concatenate([[0], np.cumsum(parts)[:-1]])
    segment = before[run] + part
    first = np.searchsorted(segment, segment)
    return segment, np.arange(index.size) - first


def _outlying(name: IntArray, step: FloatArray, over: FloatArray) -> tuple[BoolArray, FloatArray]:
    """Which displacements (axes, N) over times (N,) are far too long, in any axis, and the variance that is kept.

    Too long for all tracks together and for the track itself: a few particles may be faster than most.
    """
    far, kept = np.zeros(name.size, np.bool_), np.ones(len(step))
    _, group, count = np.unique(name, return_inverse=True, return_counts=True)
    enough = count >= FEWEST_TO_JUDGE
    if not enough.any():
        return far, kept
    longer = np.maximum(over / np.median(over), 1.0)
    velocity = grouped_median(step / over, group)[:, group]
    off = (step - velocity * over) ** 2 / longer
    own = np.where(enough, grouped_median(off, group) / MEDIAN_OF_CHI_SQUARE, 0.0)
    looser = 1.0 + LOOSER / count
    for axis, squares in enumerate(off):
        limit, kept[axis] = _limit(squares[enough[group]])
        far |= squares > (looser * np.maximum(limit, OUTLIER**2 * own[axis]))[group]
    return far, kept


def _limit(squares: FloatArray) -> tuple[float, float]:
    """Square of the displacement beyond which are 6 in 100,000 right ones, and what the others have of the
    variance."""
    middle, outer = (float(np.quantile(squares, share)) for share in (MIDDLE, OUTER))
    quantiles = [gammaincinv(1.0 / SHAPES, share) ** (1.0 / SHAPES) for share in (MIDDLE, OUTER)]
    expected = quantiles[1] / quantiles[0]
    ratio = np.sqrt(outer / middle) if middle > 0 else np.inf
    shape = 2.0 if ratio < PEAKED * expected[-1] else float(np.interp(-ratio, -expected, SHAPES))
    scale = np.sqrt(outer) / float(gammaincinv(1.0 / shape, OUTER)) ** (1.0 / shape)
    beyond = float(gammainccinv(1.0 / shape, erfc(OUTLIER / np.sqrt(2.0))))
    return (scale * beyond ** (1.0 / shape)) ** 2, float(gammainc(3.0 / shape, beyond))
