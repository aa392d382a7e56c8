"""How the flow changes slowly over time, with a memory that the data choose."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.stats import chi2

from tracking.physics.channel.fit import ChannelFit
from tracking.physics.channel.model import axes_of, expected_velocity
from tracking.physics.tracks.velocities import TrackVelocities

FloatArray = npt.NDArray[np.float64]

CLIP = 5.0
"""Standard deviations from its block's median beyond which a track is left out."""
FEWEST_BLOCKS = 4
FALSE_ALARMS = 1e-3
"""Probability that a steady flow is called varying; a look for a whole run."""
SMALLEST = 0.005
"""Variation (rms, over the mean) that is worth telling. Depths that are wrong by 2 um in some slices of a run look
like 0.2 % of variation, since slices follow one another."""
SLOWEST, FASTEST = 1e-6, 1e3
"""Variance that the flow gains in a block, over that of a block's estimate: the best is looked for in between."""


@dataclass(frozen=True, slots=True, eq=False)
class OverTime:
    """The flow over its mean in the fit, by block of time: (B,) each.

    `measured` has the `standard_error` of the block's own tracks. `smoothed`, with its own, takes other blocks into
    account as far as the flow stays the same: exponentially with the time difference over `memory_s` (infinite:
    the flow is steady). `p` is the probability of at least such variation in a steady flow.
    """

    time_s: FloatArray
    measured: FloatArray
    standard_error: FloatArray
    smoothed: FloatArray
    smoothed_standard_error: FloatArray
    memory_s: float
    p: float

    @property
    def steady(self) -> bool:
        """Whether no variation was found."""
        return math.isinf(self.memory_s)

    def at(self, time_s: FloatArray) -> FloatArray:
        """The smoothed flow over its mean at other times, linear in between."""
        factor: FloatArray = np.interp(time_s, self.time_s, self.smoothed)
        return factor


def over_time(fit: ChannelFit, tracks: TrackVelocities, block_s: float = 1.0) -> OverTime | None:
    """The factor of the flow in blocks of time, from tracks cut into pieces not much longer than that.

    The factor is a random walk (local level model), whose variance in time is the most likely one; a steady flow is
    kept unless that is unlikely (likelihood ratio at the edge of its range: half the probability of chi-square),
    and the variation more than `SMALLEST`.
    None if fewer than four blocks have tracks.
    """
    expected = expected_velocity(fit.section, fit.theta, fit.reference_x_um, tracks)
    along = axes_of(fit.theta)[:, 0]
    model = along @ expected.velocity_um_s
    speed = along @ tracks.velocity_um_s
    sigma = np.sqrt(along**2 @ (tracks.velocity_sigma_um_s**2 + expected.shear_variance))
    usable = np.isfinite(speed) & np.isfinite(sigma) & (np.abs(model) > 0)
    factor = speed[usable] / model[usable]
    weight = (model[usable] / sigma[usable]) ** 2
    block = np.floor(tracks.time_s[usable] / block_s).astype(np.int64)
    rows = []
    for number in np.unique(block):
        inside = np.flatnonzero(block == number)
        f, w = factor[inside], weight[inside]
        off = (f - _weighted_median(f, w)) * np.sqrt(w)
        scale = max(1.4826 * float(np.median(np.abs(off))), 0.2)
        kept = np.abs(off) < CLIP * scale
        if kept.sum() < 3:
            continue
        mean = float(np.average(f[kept], weights=w[kept]))
        dispersion = float(np.sum(w[kept] * (f[kept] - mean) ** 2)) / (int(kept.sum()) - 1)
        rows.append(((number + 0.5) * block_s, mean, math.sqrt(dispersion / w[kept].sum())))
    if len(rows) < FEWEST_BLOCKS:
        return None
    return _followed(*np.array(rows).T)


def steadied(tracks: TrackVelocities, flow: OverTime) -> TrackVelocities:
    """The tracks' velocities as they would be at the mean flow; a fit to these is free of the variation."""
    factor = flow.at(tracks.time_s)
    return replace(
        tracks,
        velocity_um_s=tracks.velocity_um_s / factor,
        velocity_sigma_um_s=tracks.velocity_sigma_um_s / np.abs(factor),
    )


def _weighted_median(values: FloatArray, weight: FloatArray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2.0)])


def _followed(time_s: FloatArray, measured: FloatArray, error: FloatArray) -> OverTime:
    variance = error**2
    gap = np.diff(time_s)
    typical = float(np.median(variance)) / float(np.median(gap))

    def loss(log_rate: float) -> float:
        return -_filtered(measured, variance, gap, math.exp(log_rate) * typical)[0]

    best = minimize_scalar(loss, bounds=(math.log(SLOWEST), math.log(FASTEST)), method="bounded")
    gain = 2.0 * (-float(best.fun) - _filtered(measured, variance, gap, 0.0)[0])
    p = 0.5 * float(chi2.sf(max(gain, 0.0), 1))
    rate = math.exp(float(best.x)) * typical if p < FALSE_ALARMS else 0.0
    found = _smoothed(time_s, measured, error, gap, rate, p)
    return (
        found
        if float(np.std(found.smoothed)) >= SMALLEST
        else _smoothed(time_s, measured, error, gap, 0.0, p)
    )


def _smoothed(
    time_s: FloatArray, measured: FloatArray, error: FloatArray, gap: FloatArray, rate: float, p: float
) -> OverTime:
    """The flow as a random walk of this variance a second, from all blocks."""
    variance = error**2
    _, level, spread = _filtered(measured, variance, gap, rate)
    smoothed, own = level.copy(), spread.copy()
    for k in range(len(level) - 2, -1, -1):  # Rauch, Tung & Striebel, AIAA J. 3, 1445 (1965)
        share = spread[k] / (spread[k] + rate * gap[k])
        smoothed[k] = level[k] + share * (smoothed[k + 1] - level[k])
        own[k] = spread[k] + share**2 * (own[k + 1] - spread[k] - rate * gap[k])
    # In the steady state the filter forgets as exp(-t / sqrt(variance of a block * its length / rate)).
    memory = math.sqrt(float(np.median(variance)) * float(np.median(gap)) / rate) if rate else math.inf
    return OverTime(time_s, measured, error, smoothed, np.sqrt(own), memory, p)


def _filtered(
    measured: FloatArray, variance: FloatArray, gap: FloatArray, rate: float
) -> tuple[float, FloatArray, FloatArray]:
    """Log-likelihood of a random walk that begins at the first value, its filtered level and variance."""
    level, spread = np.empty_like(measured), np.empty_like(measured)
    level[0], spread[0] = measured[0], variance[0]
    likelihood = 0.0
    for k in range(1, measured.size):
        predicted = spread[k - 1] + rate * gap[k - 1]
        total = predicted + variance[k]
        off = measured[k] - level[k - 1]
        likelihood -= 0.5 * (math.log(total) + off**2 / total)
        gain = predicted / total
        level[k] = level[k - 1] + gain * off
        spread[k] = (1.0 - gain) * predicted
    return likelihood, level, spread
