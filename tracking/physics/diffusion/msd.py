"""Mean squared displacements of one track or of all, with the covariance of their lags, and the anomalous exponent.

Displacements of overlapping intervals, and the values at different lags, are correlated. Of one track the
covariance is that of Brownian motion with localisation errors (Qian, Sheetz & Elson, Biophys. J. 60, 910, 1991;
Michalet, Phys. Rev. E 82, 041914, 2010), computed for its own times; of many tracks it is that of their scatter,
whatever the motion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from stream.errors import ConfigurationError
from tracking.analysis.velocity import pairs_apart
from tracking.physics.diffusion.covariance import FEW_TRACKS

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LAGS = 20
LEAST_PAIRS = (
    4  # of a lag that is given, and at least a quarter as many as the lag is long: fewer say nothing
)
TIGHT, LOOSE = 1e-8, 1e8  # bounds of the generalised diffusion coefficient over its first guess


@dataclass(frozen=True, slots=True, eq=False)
class MeanSquaredDisplacements:
    """Mean squared displacements (axes, lags), um^2, over `lag_s` (lags,), s.

    `covariance_um4` (axes, lags, lags) is that of the lags of each axis; `pairs` (lags,) is how many displacements
    each is the mean of, `tracks` of how many tracks.
    """

    lag_s: FloatArray
    msd_um2: FloatArray
    covariance_um4: FloatArray
    pairs: IntArray
    tracks: int

    @property
    def standard_error_um2(self) -> FloatArray:
        """Standard errors (axes, lags), um^2."""
        error: FloatArray = np.sqrt(np.diagonal(self.covariance_um4, axis1=1, axis2=2))
        return error


@dataclass(frozen=True, slots=True)
class AnomalousExponent:
    """MSD = 2 n K t^alpha + 2 n sigma^2 of n axes: alpha (1: Brownian) and K, um^2/s^alpha, with standard errors.

    `offset_um2` is sigma^2 as far as motion blur leaves it.
    """

    alpha: float
    standard_error_alpha: float
    coefficient: float
    standard_error_coefficient: float
    offset_um2: float


def mean_squared_displacements(
    track: npt.ArrayLike,
    frame: npt.ArrayLike,
    position_um: npt.ArrayLike,
    interval_s: float,
    *,
    lags: int = LAGS,
    drift: bool = True,
) -> MeanSquaredDisplacements:
    """Time- and ensemble-averaged mean squared displacements of rows (N,) with positions (axes, N).

    Lags are frames of `interval_s`; a frame in which a particle is missing makes no pair. `drift` subtracts the
    mean velocity of all tracks (of one track alone its own, which lowers its values at long lags). With fewer than
    30 tracks the covariance is that of Brownian motion. Raises `ConfigurationError` if no track has two frames.
    """
    name, number = np.asarray(track).astype(np.int64), np.asarray(frame).astype(np.int64)
    where = np.atleast_2d(np.asarray(position_um, np.float64))
    known = np.isfinite(where).all(axis=0)
    name, number, where = name[known], number[known], where[:, known]
    order = np.lexsort((number, name))
    name, number, where = name[order], number[order], where[:, order]
    names, which = np.unique(name, return_inverse=True)
    which = which.reshape(-1)
    if drift and name.size:
        where = where - _mean_velocity(which, number, where)[:, None] * number
    shape = (len(where), lags, names.size)
    sums, count = np.zeros(shape), np.zeros(shape[1:], np.int64)
    for lag in range(1, lags + 1) if name.size else ():
        start, end = pairs_apart(which, number, lag)
        count[lag - 1] = np.bincount(which[start], minlength=names.size)
        for axis, x in enumerate(where):
            sums[axis, lag - 1] = np.bincount(which[start], (x[end] - x[start]) ** 2, names.size)
    pairs = count.sum(axis=1)
    given = pairs >= np.maximum(LEAST_PAIRS, np.arange(1, lags + 1) / 4)
    if not given.any():
        raise ConfigurationError("no track has two frames that are one lag apart; give longer tracks")
    sums, count, pairs = sums[:, given], count[given], pairs[given]
    lag_of = np.flatnonzero(given) + 1
    msd: FloatArray = sums.sum(axis=2) / pairs
    tracks = int((count.sum(axis=0) > 0).sum())
    if tracks >= FEW_TRACKS:
        off = (sums - msd[..., None] * count) / pairs[:, None]
        covariance = tracks / (tracks - 1) * np.einsum("alt,amt->alm", off, off)
    else:
        frames = [number[which == t] for t in range(names.size)]
        covariance = np.stack([_brownian(row, lag_of, frames, pairs) for row in msd])
    return MeanSquaredDisplacements(lag_of * np.float64(interval_s), msd, covariance, pairs, tracks)


def _mean_velocity(which: IntArray, number: IntArray, where: FloatArray) -> FloatArray:
    """Mean displacement a frame of all tracks, (axes,): from the first to the last position of each."""
    _, first, count = np.unique(which, return_index=True, return_counts=True)
    last = first + count - 1
    frames = float((number[last] - number[first]).sum())
    moved: FloatArray = (where[:, last] - where[:, first]).sum(axis=1)
    return moved / frames if frames else np.zeros(len(where))


def _brownian(msd: FloatArray, lags: IntArray, frames: list[IntArray], pairs: IntArray) -> FloatArray:
    """Covariance (lags, lags) of one axis for Brownian motion that fits the first lags.

    For displacements over l from i and over m from j: <.,.> = 2 D dt overlap + sigma^2 (d_ij - d_i,j+m - d_i+l,j +
    d_i+l,j+m), and the covariance of their squares is twice the square of that.
    """
    few = slice(0, min(4, lags.size))
    slope, offset = np.polyfit(lags[few], msd[few], 1) if lags.size > 1 else (msd[0] / lags[0], 0.0)
    slope, noise = max(float(slope), 0.0), max(float(offset), 0.0) / 2.0
    covariance = np.zeros((lags.size, lags.size))
    for present in frames:
        if present.size < 2:
            continue
        row = np.zeros(int(np.ptp(present)) + 1)
        row[present - present.min()] = 1.0
        starts = [row[: -int(lag)] * row[int(lag) :] if lag < row.size else np.zeros(0) for lag in lags]
        for a, lag in enumerate(lags):
            n = int(lag)
            for b in range(a, lags.size):
                m = int(lags[b])
                if not (starts[a].size and starts[b].size):
                    continue
                shift = np.arange(-n, m + 1)  # i - j
                overlap = np.clip(np.minimum(shift + n, m) - np.maximum(shift, 0), 0, None)
                signs = (shift == 0) * 1.0 - (shift == m) - (shift == -n) + (shift == m - n)
                both = (slope * overlap + noise * signs) ** 2
                number = np.array([_shifted(starts[a], starts[b], int(k)) for k in shift])
                covariance[a, b] += 2.0 * float(both @ number)
    covariance = np.triu(covariance) + np.triu(covariance, 1).T
    scaled: FloatArray = covariance / np.outer(pairs, pairs)
    return scaled


def _shifted(a: FloatArray, b: FloatArray, shift: int) -> float:
    """Number of i = j + shift with a start in both."""
    low, high = max(shift, 0), min(a.size, b.size + shift)
    return float(a[low:high] @ b[low - shift : high - shift]) if high > low else 0.0


def anomalous_exponent(
    found: MeanSquaredDisplacements, axes: tuple[int, ...] | None = None
) -> AnomalousExponent:
    """alpha from the mean squared displacements, summed over `axes` (left out: all), of at least four lags.

    The fit weights each lag by its variance; the standard errors take the covariance of the lags into account.
    """
    chosen = list(range(len(found.msd_um2))) if axes is None else list(axes)
    msd = found.msd_um2[chosen].sum(axis=0)
    covariance = found.covariance_um4[chosen].sum(axis=0)
    nothing = AnomalousExponent(*[math.nan] * 5)
    weight = np.sqrt(np.diag(covariance))
    if msd.size < 4 or not (weight > 0).all():
        return nothing
    t, n = found.lag_s, 2.0 * len(chosen)
    slope = max(float((msd[3] - msd[0]) / (t[3] - t[0])), 1e-3 * float(msd[0] / t[0]))

    def off(p: FloatArray) -> FloatArray:
        left: FloatArray = (slope * math.exp(p[0]) * t ** p[1] + msd[0] * p[2] - msd) / weight
        return left

    low, high = [math.log(TIGHT), 0.01, -1.0], [math.log(LOOSE), 3.0, 1.0]
    best = least_squares(off, np.array([0.0, 1.0, 0.0]), bounds=(low, high), x_scale=[0.1, 0.1, 0.1])
    jacobian = np.asarray(best.jac, np.float64)
    if not best.success or np.linalg.matrix_rank(jacobian) < 3:
        return nothing
    gain = np.linalg.pinv(jacobian) / weight
    error = np.sqrt(np.diag(gain @ covariance @ gain.T))
    coefficient = slope * math.exp(best.x[0]) / n
    return AnomalousExponent(
        float(best.x[1]),
        float(error[1]),
        coefficient,
        coefficient * float(error[0]),
        float(best.x[2] * msd[0]) / n,
    )
