"""Whether numbers fall into two groups with a gap between them, or are one continuous distribution.

The measure is Ashman's D (Ashman, Bird & Zepf 1994, AJ 108, 2348): the distance of the groups' means over the
root mean square of their standard deviations. Any continuous distribution can be cut in two; of the symmetric
ones with one hump the uniform one leaves the largest D (3.46; a normal one 2.65), as it has the least in its
middle; of skewed ones the tail can be cut off. What counts as two groups must exceed what the best cuts of as many
uniform, and of as many exponential, numbers reach by chance.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

LEAST_D = 4.0
"""D below which a distribution counts as continuous whatever its number: 15 % above that of the uniform one, as its
two humps may come from an uneven choice of particles. Sizes of 1 : 2, each spread by +-15 %, give 7."""
CHANCE = 1e-3
"""Part of such samples that may be cut with a larger D."""
MARGIN = 1.3
"""D over that of chance that is asked for. Several divisions are tried, and to divide one kind does more harm than
to overlook a second one, which `--kinds 2` finds: beads of one kind with a few odd ones among them (idpt-zscan)
reach 1.13. Mixtures of 1 : 2 with a spread of +-10 % reach 1.4, without spread 7."""
DRAWS = 2000
SEED = 0


def separation(values: FloatArray, upper: npt.NDArray[np.bool_]) -> float:
    """D of values (N,) cut into those that are `upper` (N,) and the others; 0 where one of them is empty."""
    if upper.all() or not upper.any():
        return 0.0
    low, high = values[~upper], values[upper]
    spread = np.sqrt((low.var() + high.var()) / 2)
    return float(abs(high.mean() - low.mean()) / max(spread, 1e-12))


def best_cut(values: FloatArray, least: int) -> tuple[npt.NDArray[np.bool_], float]:
    """The cut of values (N,) that leaves the largest D, each part with `least` of them or more: what is above it
    (N,), and D."""
    order = np.argsort(values, kind="stable")
    d = _cuts(values[order][None], least)[0]
    best = int(np.argmax(d))
    upper = np.zeros(values.size, np.bool_)
    upper[order[least + best :]] = True
    return upper, float(d[best])


@lru_cache(maxsize=64)
def least_separation(count: int, least: int) -> float:
    """D from which `count` numbers are two groups of `least` or more."""
    chance, rng = [], np.random.default_rng(SEED)
    for drawn in (rng.random((DRAWS, count)), rng.exponential(size=(DRAWS, count))):
        chance.append(float(np.quantile(_cuts(np.sort(drawn, axis=1), least).max(axis=1), 1 - CHANCE)))
    return MARGIN * max(LEAST_D, *chance)


def _cuts(values: FloatArray, least: int) -> FloatArray:
    """D (M, C) of all cuts of rising values (M, N) that leave `least` or more on either side."""
    count = values.shape[1]
    values = values - values.mean(axis=1, keepdims=True)
    first, second = np.cumsum(values, axis=1), np.cumsum(values**2, axis=1)
    below = np.arange(least, count - least + 1)
    above = count - below
    low, low2 = first[:, below - 1], second[:, below - 1]
    high, high2 = first[:, -1:] - low, second[:, -1:] - low2
    mean_low, mean_high = low / below, high / above
    spread = np.maximum(low2 / below - mean_low**2, 0) + np.maximum(high2 / above - mean_high**2, 0)
    d: FloatArray = (mean_high - mean_low) / np.sqrt(np.maximum(spread / 2, 1e-24))
    return d
