"""Velocity of each track, velocity profiles and diffusion coefficients, from columns of rows.

All functions take one row for each detection, without predicted rows, in any order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracking.analysis.robust import SIGMA_OF_MAD

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

GROUPS = 20
"""Groups of tracks that the jackknife leaves out in turn. The standard error itself is known to 1 / sqrt(2 (20 -
1)), a sixth; more groups make it better known and cost a fit each."""
FEWEST_TO_JUDGE = 5
"""Tracks in a bin from which outliers are left out: of fewer, the median absolute deviation may be close to zero by
chance and would make outliers of good tracks."""
CLIP = 5.0
"""Standard deviations from its bin's median beyond which a track is left out. The mean must not depend on the
limit where errors are Gaussian (6 in 10 million are beyond it), and the true velocities in a bin may spread more
evenly."""
BINS = 20
"""Bins of a profile if none are given. Wider bins have smaller standard errors and flatten the profile."""
LAGS = 4
"""Lags of the mean squared displacement that are fitted. The first few know D best (Michalet, Phys. Rev. E 82,
041914, 2010); more add correlated values, of which the weights make little."""
MIN_LENGTH = 10
"""Detections that a track must have, if not given. Shorter ones have the larger standard errors, and more of them
are made of wrong links; to require longer ones favours slow particles."""
SMALLEST_VARIANCE = 1e-300
"""Keeps weights finite where all velocities are equal and exact; never reached by measured ones."""


@dataclass(frozen=True, slots=True)
class TrackSummary:
    """One entry for each track, (M,), in order of track number.

    Positions are means, um. `velocity_um_s` (3, M) is the slope of position over time, `sigma_um_s` (3, M) its
    standard error, `median_um_s` (3, M) the median over frames of displacement over time (Franchini & Krevor 2020).
    """

    track: IntArray
    length: IntArray
    x_um: FloatArray
    y_um: FloatArray
    z_um: FloatArray
    velocity_um_s: FloatArray
    sigma_um_s: FloatArray
    median_um_s: FloatArray


def per_track_summary(
    track: npt.ArrayLike,
    time_s: npt.ArrayLike,
    x_um: npt.ArrayLike,
    y_um: npt.ArrayLike,
    z_um: npt.ArrayLike,
    min_length: int = MIN_LENGTH,
) -> TrackSummary:
    """Summarise the tracks with at least `min_length` (>= 3) detections.

    If all times of a track are equal, its velocities and their standard errors are NaN.

    A particle's path is a drift plus a random walk, seen with localisation error. The residuals of a straight line
    are therefore correlated, and the usual standard error of the slope is too small. Its variance for n points over
    T is instead

        6/5 * 2 D / T + 12 s^2 / (n T^2)

    with D and the localisation variance s^2 from the displacements d by the covariance-based estimator,
    2 D dt = <d^2> + 2 <d d'>, s^2 = -<d d'> (Vestergaard et al., Phys. Rev. E 89, 022726, 2014), pooled over all
    tracks.
    """
    order = np.lexsort((np.asarray(time_s), np.asarray(track)))
    names = np.asarray(track).astype(np.int64)[order]
    time = np.asarray(time_s, np.float64)[order]
    position = np.stack([np.asarray(c, np.float64)[order] for c in (x_um, y_um, z_um)])
    number, first, length = np.unique(names, return_index=True, return_counts=True)
    long_enough = length >= max(min_length, 3)
    kept = np.repeat(long_enough, length)
    time, position = time[kept], position[:, kept]
    number, length = number[long_enough], length[long_enough]
    if number.size == 0:
        none = np.empty(0)
        empty = np.empty((3, 0))
        return TrackSummary(number, length, none, none, none, empty, empty, empty)
    first = np.concatenate([[0], np.cumsum(length)[:-1]])
    which = np.repeat(np.arange(number.size), length)

    def total(values: FloatArray) -> FloatArray:
        return np.add.reduceat(values, first, axis=-1)

    t = time - (total(time) / length)[which]
    mean = total(position) / length
    velocity = _over(total(t * (position - mean[:, which])), total(t * t))
    steps = np.diff(position, axis=1)
    dt = np.diff(time)
    inside = which[1:] == which[:-1]
    duration = total(np.append(np.where(inside, dt, 0.0), 0.0))
    walk, error = walk_and_error(steps - velocity[:, which[1:]] * dt, dt, inside)
    variance = _over(1.2 * walk[:, None], duration) + _over(12.0 * error[:, None], length * duration**2)
    moving = inside & (dt > 0)
    moved, group = np.unique(which[1:][moving], return_inverse=True)
    median = np.full_like(velocity, np.nan)
    median[:, moved] = grouped_median(steps[:, moving] / dt[moving], group)
    x, y, z = mean
    return TrackSummary(number, length, x, y, z, velocity, np.sqrt(variance), median)


def walk_and_error(
    steps: FloatArray, dt: FloatArray, inside: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """2 D (um^2/s) and localisation variance (um^2) of each axis, (3,), from displacements without drift."""
    square = (steps[:, inside] ** 2).mean(axis=1)
    both = inside[1:] & inside[:-1]
    product = (steps[:, 1:] * steps[:, :-1])[:, both].mean(axis=1)
    error = np.maximum(-product, 0.0)
    walk = _over(np.maximum(square - 2.0 * error, 0.0), dt[inside].mean())
    return walk, error


def _over(value: FloatArray, divisor: npt.ArrayLike) -> FloatArray:
    """The quotient; NaN where the divisor is 0 because no time has passed."""
    value, divisor = np.broadcast_arrays(value, divisor)
    quotient: FloatArray = np.divide(value, divisor, out=np.full(value.shape, np.nan), where=divisor != 0)
    return quotient


def grouped_median(values: FloatArray, group: IntArray) -> FloatArray:
    """Median of each group's values (rows, N) for ascending `group` numbers 0, 1, ..."""
    count = np.bincount(group)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    low, high = first + (count - 1) // 2, first + count // 2
    ordered = [row[np.lexsort((row, group))] for row in values]
    return np.stack([(row[low] + row[high]) / 2.0 for row in ordered])


@dataclass(frozen=True, slots=True)
class VelocityProfile:
    """Mean velocity by height, one entry for each bin with at least two tracks; heights are the tracks' means.

    `used` (N,) says which of the given tracks are part of a bin's mean.
    """

    height_um: FloatArray
    velocity_um_s: FloatArray
    standard_error_um_s: FloatArray
    tracks: IntArray
    used: npt.NDArray[np.bool_]


def velocity_profile(
    height_um: npt.ArrayLike,
    velocity_um_s: npt.ArrayLike,
    sigma_um_s: npt.ArrayLike | None = None,
    bins: int | npt.ArrayLike = BINS,
    clip: float | None = CLIP,
) -> VelocityProfile:
    """Average the velocities (one for each track) in bins of height, weighted by 1 / (sigma^2 + scatter^2).

    `bins` is a number of equal bins over all heights, or their edges. The standard error comes from the scatter in
    the bin, sqrt(sum w^2 (v - mean)^2) / sum w, which includes the spread of true velocities across it. Tracks
    farther than `clip` standard deviations (by the median absolute deviation) from their bin's median are left
    out: they are mostly two particles detected as one, with a height between theirs.
    """
    height, velocity = np.asarray(height_um, np.float64), np.asarray(velocity_um_s, np.float64)
    sigma = np.zeros_like(velocity) if sigma_um_s is None else np.asarray(sigma_um_s, np.float64)
    usable = np.isfinite(height) & np.isfinite(velocity) & np.isfinite(sigma)
    used = np.zeros(height.size, np.bool_)
    places = np.flatnonzero(usable)
    height, velocity, sigma = height[usable], velocity[usable], sigma[usable]
    if height.size == 0:
        return VelocityProfile(np.empty(0), np.empty(0), np.empty(0), np.empty(0, np.int64), used)
    edges = np.histogram_bin_edges(height, bins)
    which = np.clip(np.searchsorted(edges, height, side="right") - 1, 0, edges.size - 2)
    which = np.where((height < edges[0]) | (height > edges[-1]), -1, which)
    rows = []
    for index in range(edges.size - 1):
        inside = which == index
        if clip is not None:
            inside = _without_outliers(inside, velocity, clip)
        if inside.sum() < 2:
            continue
        used[places[inside]] = True
        v, h, s = velocity[inside], height[inside], sigma[inside]
        weight = 1.0 / np.maximum(s**2 + np.var(v), SMALLEST_VARIANCE)
        mean = np.average(v, weights=weight)
        few = v.size / (v.size - 1)
        error = math.sqrt(few * float(np.sum((weight * (v - mean)) ** 2))) / float(weight.sum())
        rows.append((np.average(h, weights=weight), mean, error, v.size))
    table = np.array(rows, np.float64).reshape(-1, 4).T
    return VelocityProfile(table[0], table[1], table[2], table[3].astype(np.int64), used)


def _without_outliers(
    inside: npt.NDArray[np.bool_], velocity: FloatArray, clip: float
) -> npt.NDArray[np.bool_]:
    if inside.sum() < FEWEST_TO_JUDGE:
        return inside
    off = np.abs(velocity - np.median(velocity[inside]))
    kept: npt.NDArray[np.bool_] = inside & (off <= clip * SIGMA_OF_MAD * np.median(off[inside]))
    return kept


@dataclass(frozen=True, slots=True)
class Diffusion:
    """A diffusion coefficient with its standard error, and the mean squared displacements it was fitted to."""

    um2_s: float
    standard_error_um2_s: float
    localisation_um: float
    lag_s: FloatArray
    msd_um2: FloatArray
    tracks: int


def diffusion_coefficient(
    track: npt.ArrayLike,
    frame: npt.ArrayLike,
    x_um: npt.ArrayLike,
    y_um: npt.ArrayLike,
    dt_s: float,
    *,
    lags: int = LAGS,
    min_length: int = MIN_LENGTH,
    remove_drift: bool = True,
) -> Diffusion:
    """Fit MSD(t) = 4 D t + b to the in-plane mean squared displacements of the first few lags.

    The intercept b = 4 s^2 - 4/3 D t_exposure holds the localisation error s (Savin & Doyle, Biophys. J. 88, 623,
    2005; `localisation_um` neglects the motion blur). Lags are weighted by the inverse variance of Qian et
    al. (Biophys. J. 60, 910, 1991), 1 / (MSD^2 (2 l^2 + 1) / (3 l N)); the standard error is a jackknife over
    groups of tracks. `remove_drift` subtracts the mean displacement of all particles from frame to frame.
    Tracks of fewer than `min_length` detections are left out; the result is NaN if too few remain.
    """
    order = np.lexsort((np.asarray(frame), np.asarray(track)))
    name = np.asarray(track).astype(np.int64)[order]
    time = np.asarray(frame).astype(np.int64)[order]
    position = np.stack([np.asarray(c, np.float64)[order] for c in (x_um, y_um)])
    _, which, length = np.unique(name, return_inverse=True, return_counts=True)
    kept = (length >= min_length)[which]
    which, time, position = which[kept], time[kept], position[:, kept]
    if which.size == 0:
        return Diffusion(math.nan, math.nan, math.nan, np.empty(0), np.empty(0), 0)
    tracks, which = np.unique(which, return_inverse=True)
    if remove_drift:
        position = position - _drift(which, time, position)[:, time - time.min()]
    group = which % GROUPS
    square = np.zeros((GROUPS, lags))
    count = np.zeros((GROUPS, lags))
    for lag in range(1, lags + 1):
        start, end = pairs_apart(which, time, lag)
        moved = ((position[:, end] - position[:, start]) ** 2).sum(axis=0)
        square[:, lag - 1] = np.bincount(group[start], moved, GROUPS)
        count[:, lag - 1] = np.bincount(group[start], minlength=GROUPS)
    lag_s: FloatArray = np.arange(1, lags + 1, dtype=np.float64) * dt_s
    slope, intercept, msd = _fit_msd(square.sum(axis=0), count.sum(axis=0), lag_s)
    without = [
        _fit_msd(square.sum(axis=0) - square[g], count.sum(axis=0) - count[g], lag_s)[0]
        for g in range(min(GROUPS, tracks.size))
    ]
    spread = np.array(without) - np.mean(without)
    error = math.sqrt((len(without) - 1) / len(without) * float(np.sum(spread**2)))
    localisation = math.sqrt(intercept / 4.0) if intercept > 0 else 0.0
    return Diffusion(slope / 4.0, error / 4.0, localisation, lag_s, msd, int(tracks.size))


def pairs_apart(which: IntArray, time: IntArray, lag: int) -> tuple[IntArray, IntArray]:
    """Indices of rows of the same track that are `lag` frames apart; rows sorted by track, then time."""
    key = which * (int(time.max()) - int(time.min()) + lag + 2) + (time - time.min())
    at = np.searchsorted(key, key + lag)
    found = np.flatnonzero(at < key.size)
    start = found[key[at[found]] == key[found] + lag]
    return start, at[start]


def _drift(which: IntArray, time: IntArray, position: FloatArray) -> FloatArray:
    """Common drift (2, frames) since the first frame: summed mean displacements of all particles."""
    start, end = pairs_apart(which, time, 1)
    frames = int(time.max() - time.min()) + 1
    arrival = time[end] - time.min()
    number = np.maximum(np.bincount(arrival, minlength=frames), 1)
    steps = [np.bincount(arrival, p[end] - p[start], frames) / number for p in position]
    return np.cumsum(np.stack(steps), axis=1)


def _fit_msd(square: FloatArray, count: FloatArray, lag_s: FloatArray) -> tuple[float, float, FloatArray]:
    """Slope and intercept of the weighted line through the mean squared displacements."""
    msd = np.divide(square, count, out=np.full_like(square, np.nan), where=count > 0)
    lag = np.arange(1, lag_s.size + 1)
    usable = np.isfinite(msd) & (msd > 0)
    if usable.sum() < 2:
        return math.nan, math.nan, msd
    spread = msd * np.sqrt((2 * lag**2 + 1) / (3 * lag * np.maximum(count, 1)))
    slope, intercept = np.polyfit(lag_s[usable], msd[usable], 1, w=1.0 / spread[usable])
    return float(slope), float(intercept), msd
