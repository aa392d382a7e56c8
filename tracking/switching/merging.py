"""Two particles that are one detection: who may be, how near they are for that, what the detection says of each.

A detection of two particles lies between them: at z = (a + b) / 2 of their places. Of a alone it says that a is at
2 z - b, with the variance 4 R + P_b: so it is filtered as a detection with that place and variance.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.spatial import KDTree

from tracking.switching.motion import EXISTS, MODELS, MU, PP, P, log_likelihood, mean_of, variance_of

FloatArray = npt.NDArray[np.float64]

REACH_SPACINGS = 0.3  # distance, in mean spacings, up to which pairs of detections are counted
MEMORY_FRAMES = 200.0
SURE_SIGMAS = 2.0  # of the number of pairs, that lack before it counts
MOST = 0.9  # probability of being merged, at most
UNEVEN = 0.15
"""Of the distance of two particles: how far their common detection lies from the middle, where one is brighter."""


class Resolution:
    """Learns how near two particles are one detection, from the pairs of detections that lack near zero distance:
    in the inner half of the reach, by how many there are in the outer half.

    `width_um` (3,) is the standard deviation along each axis of the probability of being merged over the distance,
    exp(-d^2 / 2 width^2), in proportion to the errors of the detections; 0 where none are known to be.
    """

    def __init__(self) -> None:
        self.width_um: FloatArray = np.zeros(3)
        self._reach = 0.0
        self._pairs: FloatArray = np.zeros(2)

    def learn(self, points: FloatArray, variances: FloatArray, extent_um: FloatArray) -> None:
        """Take in the detections of a frame: `points` and `variances` (axes, N), um, in a volume of `extent_um`."""
        axes, count = points.shape
        if count < 3:
            return
        scale = np.sqrt(np.median(variances, axis=1))
        scale /= np.exp(np.log(scale).mean())
        ball = math.pi if axes == 2 else 4.0 / 3.0 * math.pi
        volume = float(extent_um[:axes].prod())
        if not self._reach:
            self._reach = REACH_SPACINGS * (volume / count) ** (1.0 / axes)
        tree = KDTree((points / scale[:, None]).T)
        inner = len(tree.query_pairs(0.5 * self._reach))
        both = len(tree.query_pairs(self._reach))
        keep = math.exp(-1.0 / MEMORY_FRAMES)
        self._pairs *= keep
        self._pairs += inner, both - inner
        per_volume = self._pairs[1] / (ball * self._reach**axes * (1.0 - 0.5**axes))
        expected = per_volume * ball * (0.5 * self._reach) ** axes
        lack = expected - self._pairs[0] - SURE_SIGMAS * math.sqrt(expected + 0.25 * self._pairs[1] / 2**axes)
        self.width_um[:axes] = 0.0
        if lack > 0.0:
            size = ((expected - self._pairs[0]) / per_volume) ** (1.0 / axes) / math.sqrt(2.0 * math.pi)
            self.width_um[:axes] = size * scale


@njit(cache=True, nogil=True, error_model="numpy")
def pair_up(
    state: Any,
    count: int,
    axes: int,
    width: Any,
    partner: Any,
    chance: Any,
    place: Any,
    spread: Any,
    seen: Any,
) -> None:
    """Find for each predicted track the one with which it is most likely merged: `partner` (N,), -1 for none, and
    the `chance` (N,); `place` and `spread` (3, N) get the means and variances of the predictions.

    `seen`, the probability of being detected, becomes smaller: one of the two is not.
    """
    for i in range(count):
        partner[i], chance[i] = -1, 0.0
        for a in range(axes):
            place[a, i] = mean_of(state, i, a, P)
            spread[a, i] = variance_of(state, i, a, P, PP, 0.0)
    if width[0] <= 0.0:
        return
    order = np.argsort(place[0, :count])
    for first in range(count):
        i = order[first]
        for second in range(first + 1, count):
            k = order[second]
            if place[0, k] - place[0, i] > 4.0 * width[0] + 4.0 * math.sqrt(spread[0, i]):
                break
            log = 0.0
            for a in range(axes):
                total = width[a] ** 2 + spread[a, i] + spread[a, k]
                log += math.log(width[a] ** 2 / total) - (place[a, i] - place[a, k]) ** 2 / total
            found = min(math.exp(0.5 * log) * min(state[EXISTS, i], state[EXISTS, k]), MOST)
            if found > chance[i]:
                partner[i], chance[i] = k, found
            if found > chance[k]:
                partner[k], chance[k] = i, found
    for i in range(count):
        if chance[i] < 1e-3:
            partner[i], chance[i] = -1, 0.0
        seen[i] *= 1.0 - 0.5 * chance[i]


@njit(cache=True, nogil=True, error_model="numpy")
def as_of_one(
    i: int,
    k: int,
    axes: int,
    z: Any,
    variances: Any,
    j: int,
    place: Any,
    spread: Any,
    of_z: Any,
    of_variance: Any,
) -> None:
    """What detection `j` of the tracks `i` and `k` together says of `i`: `of_z` and `of_variance` (3, 1)."""
    for a in range(axes):
        apart = place[a, i] - place[a, k]
        of_z[a, 0] = 2.0 * z[a, j] - place[a, k]
        of_variance[a, 0] = 4.0 * (variances[a, j] + (UNEVEN * apart) ** 2) + spread[a, k]


@njit(cache=True, nogil=True, error_model="numpy")
def log_mixture(state: Any, i: int, axes: int, z: Any, variances: Any, j: int, dt: float) -> float:
    """ln of the density of detection `j`, taken `dt` (s) after the prediction, for track `i`: all models."""
    best = -1e300
    total = 0.0
    for m in range(MODELS):
        log = math.log(state[MU + m, i]) + log_likelihood(state, i, m, axes, z, variances, j, dt)
        if log > best:
            total = total * math.exp(best - log) + 1.0
            best = log
        else:
            total += math.exp(log - best)
    return best + math.log(total)
