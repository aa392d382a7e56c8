"""Learns the size of the particles' random steps from the innovations of the filter.

The variance P of a prediction is linear in the variance q of the steps as long as the gains are what they were: P =
B + A q. The filter carries A along (`tracking.kalman`), so that each innovation nu says which q it calls for: the
one with nu^2 = chi^2 (B + A q + R). If chi^2 is a quantile of chi-square, the same quantile of the q called for is
an estimate of q, in one step and however wrong the q was that the filter worked with (quantile: wrong links and
badly centred particles are in its tail; Huber & Ronchetti, Robust Statistics, 2009, ch. 5). P is then set to what
it is at the new q.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.special import gammainc

FloatArray = npt.NDArray[np.float64]

TYPICAL_SHARE = 0.75
TYPICAL_CHI_SQUARE = 1.3233
"""Quantile of chi-square with one degree of freedom, and its share, by which innovations are judged. Above it the
tail of wrong links and badly centred particles would raise the rate; at the median, in a mixture, the slow half
decides."""
MEMORY_FRAMES, MEMORY_INNOVATIONS = 40.0, 1000.0
"""An innovation counts 1/e after so many frames, and so many others of its axis in addition. ln S is then known to
0.1 or better, with one track as with many. Less is noisy where few tracks are judged, more follows a change
slowly."""
FIRST_INNOVATIONS = 100.0
"""At the start the memory is half of the frames so far, and at least so many innovations: there are more wrong
links at first than later. From 100 innovations ln S is known to 0.2."""
PRIOR_INNOVATIONS = 10.0
"""As so many innovations the first guess counts, spread as they would be if it were right. Half or twice as many
make no difference; none would trust a single track's first steps."""
CAUTION = 0.5
"""Standard errors of the share by which the rate is taken larger than what is most likely: steps that are too small
to be seen are not taken for none. ln S is larger by 0.08 after 150 innovations, by 0.01 after 4000. With 0,
particles at rest lose a few more tracks at the start; with 1, few fast particles get more wrong links."""
SLOWEST_RATE, HALF_TRUST, FAR_OFF, FASTEST = 0.05, 20.0, 0.1, 4.0
"""The slow rate changes in ln by 2 pace times the deviation of the share that is below it: the pace falls from 1 to
the first of these within 200 frames, is half as much with the second number of tracks, and up to the fourth times
faster where the share deviates by more than the third."""
HALF_LEARNT_FRAMES = 20.0  # after which the rate is trusted by half (`trusted`)
MOST_JUDGED = 256  # innovations of a frame that are used: 40 frames of them know ln S to 0.02
LEAST_CHANGE = 0.05
"""Relative change of the rate that is made: a standard error changes by 2.5 %. Smaller ones only cost time."""
BIN, LOWEST, BINS = 0.125, -40.0, 400
"""Width of a bin of ln q, the lowest one relative to the first guess, and how many there are. The rate is
interpolated within a bin; the bins reach from 1e-17 to 2e4 times the first guess."""
SQUARE, VARIANCE, SHARE = 0, 3, 6
JUDGED_ROWS = 9


class StepNoise:
    """The variance q (um^2/s) of a Brownian step per second in each axis.

    A given diffusion coefficient D fixes q = 2 D.
    """

    def __init__(self, diffusion_um2_s: float | None) -> None:
        self.known = diffusion_um2_s is not None
        self.rate: FloatArray = np.full(3, 2.0 * (diffusion_um2_s or 0.0))
        self._called: FloatArray = np.zeros((3, BINS))
        self._first: FloatArray = np.zeros(3)
        self._slow: FloatArray = self.rate.copy()
        self._next: FloatArray = np.zeros(3)
        self._frames = 0
        self._weight = 0.0

    @property
    def slow(self) -> FloatArray:
        """A rate (3,) that comes down to `rate` slowly, for decisions about the past that are hardly ever undone.

        They add up what each frame says, and must not be sure before most wrong links have ended.
        """
        return self.rate if self.known else self._slow

    @property
    def trusted(self) -> FloatArray:
        """The slow rate (3,), reduced in the first frames, in which it is too large."""
        trust = 1.0 if self.known else self._frames / (self._frames + HALF_LEARNT_FRAMES)
        trusted: FloatArray = trust * self.slow
        return trusted

    @property
    def ready(self) -> bool:
        """Whether the rate has a value."""
        return self.known or bool(self.rate[0] > 0)

    @property
    def is_new(self) -> bool:
        """Whether so little is known yet that tracks are judged by their third detection already."""
        return not self.known and self._weight < FIRST_INNOVATIONS

    def start(self, rate: FloatArray) -> None:
        """Set the first guess (3,), um^2/s; no effect if the diffusion coefficient was given."""
        if not self.ready:
            self.rate = rate.astype(np.float64)
            self._first = self.rate.copy()
            self._slow = self.rate.copy()
            self._called[:] = _prior()

    def learn(self, innovations: FloatArray, judged: int, low: FloatArray, high: FloatArray) -> None:
        """Adapt to the `judged` linked tracks of one frame.

        `innovations` (9, >= judged), three axes each: nu^2, its variance S at the present rate, both um^2, and A =
        dS/dq, s. `low` and `high` (3,), um^2/s, are bounds of the rate.
        """
        if self.known or judged == 0:
            return
        self._frames += 1
        stride = 1 + (judged - 1) // MOST_JUDGED
        used = (judged + stride - 1) // stride
        longest = MEMORY_FRAMES + MEMORY_INNOVATIONS / used
        memory = min(max(1.0 + 0.5 * self._frames, FIRST_INNOVATIONS / used), longest)
        keep = math.exp(-1.0 / memory)
        self._weight = keep * self._weight + used
        pace = max(1.0 / (1.0 + self._frames / 10.0), SLOWEST_RATE) * judged / (judged + HALF_TRUST)
        rates = (self.rate, self._slow, self._first, self._next)
        if learn_rates(self._called, innovations, judged, stride, rates, keep, pace, low, high):
            self.rate = self._next.copy()


def _prior() -> FloatArray:
    """What innovations would call for if the first guess were right, in bins (BINS,)."""
    edges = LOWEST + BIN * np.arange(BINS + 1)
    below = gammainc(0.5, 0.5 * TYPICAL_CHI_SQUARE * np.exp(edges))
    prior: FloatArray = PRIOR_INNOVATIONS * np.diff(below)
    return prior


@njit(cache=True, nogil=True, error_model="numpy")
def typical_called(called: Any) -> Any:
    """The quantile `TYPICAL_SHARE`, with `CAUTION`, of rates in bins (BINS,): ln of it over the first guess."""
    count = called.sum()
    if count <= PRIOR_INNOVATIONS:
        return 0.0
    error = math.sqrt(TYPICAL_SHARE * (1.0 - TYPICAL_SHARE) / count)
    left = min(TYPICAL_SHARE + CAUTION * error, 1.0) * count
    for at in range(BINS):
        if left <= called[at]:
            return LOWEST + BIN * (at + left / called[at])
        left -= called[at]
    return LOWEST + BIN * BINS


@njit(cache=True, nogil=True, error_model="numpy")
def learn_rates(
    called: Any,
    innovations: Any,
    judged: int,
    stride: int,
    rates: Any,
    keep: float,
    pace: float,
    low: Any,
    high: Any,
) -> bool:
    """Count the rates that every `stride`-th innovation calls for in the bins of `called` (3, BINS).

    `rates` are the one that the filter works with, the slow one, which is changed, the first guess, and the next
    one, which is set, (3,) each. Returns whether the next one differs.
    """
    rate, slow, first, following = rates
    differs = False
    for a in range(3):
        called[a] *= keep
        below = used = 0.0
        for i in range(0, judged, stride):
            share = innovations[SHARE + a, i]
            if not share > 0.0:
                continue
            rest = innovations[VARIANCE + a, i] - share * rate[a]
            q = (innovations[SQUARE + a, i] / TYPICAL_CHI_SQUARE - rest) / share
            used += 1.0
            below += q < slow[a]
            at = 0
            if q > 0.0:
                at = int(min(max((math.log(q / first[a]) - LOWEST) / BIN, 0.0), BINS - 1.0))
            called[a, at] += 1.0
        found = first[a] * math.exp(typical_called(called[a]))
        following[a] = min(max(found, low[a]), high[a])
        differs |= abs(following[a] - rate[a]) > LEAST_CHANGE * rate[a]
        if used > 0.0:
            off = TYPICAL_SHARE - below / used
            hurry = min(1.0 + (off / FAR_OFF) ** 2, FASTEST)
            slow[a] = min(max(slow[a] * math.exp(2.0 * pace * hurry * off), low[a]), high[a])
    return differs
