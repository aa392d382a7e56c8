"""Which groups of overlapping particles are fitted where there is no time for all: those that gain most.

Costs are counted in units: a lone particle is one. The order is that of value over cost, with

    value = sum of need x (frames waited)^2    (1)

over a group's particles. The need of a particle is between 1 and 5; the square of its waiting time grows without
bound, so that none waits for ever, whatever is around it.
"""

from __future__ import annotations

import numpy as np

from engines.refine.arguments import BoolArray, FloatArray, IntArray

COST_POWER = 1.2
"""A group of k particles takes k^1.2 times as long as a lone one: on 1,900 groups of 30 frames (SNR 5.6 and 8, 60
to 200 particles on 512 x 768 pixels) 1.5, 2.6, 4.7, 6.3 and 9.3 times for 2 to 6. The time of a unit is measured
while running, so that only the ratios matter."""
DOUBT_COST = 8.0
"""Cost of a place near a group where one more particle may be, tried in all ways: 2.3 to 5.3 ms on the same groups,
where a lone particle took 0.43."""
OVERLAPPED_NEED, NEW_NEED, DOUBTFUL_NEED, UNSURE_NEED = 1.0, 1.0, 1.0, 1.0
"""What is added to a particle's need of 1 where it overlaps others, is new, has no confidence, or has at least
twice the median standard error of the depth. The fit gains most there (docs/network.md: error in depth of
overlapped particles 4.4 times that of lone ones before it, 1.6 times after). They change the order only."""

LOTTERY = 8
"""One frame in so many is fitted in an order that is drawn: where particles move farther than they are apart, their
waiting times are not known, and an expensive one might never come first. More often costs what (1) gains."""


def cost_of_groups(group: IntArray, doubts: IntArray) -> tuple[FloatArray, FloatArray]:
    """The cost (N,) of the group of each particle, whose groups are numbered below N, and each number's cost (N,).

    `group` (N,) are the particles' groups, `doubts` (P,) the groups near which each doubtful place lies (-1: none).
    """
    size = np.bincount(group, minlength=len(group))
    tried = np.bincount(doubts[doubts >= 0], minlength=len(group))
    cost = size**COST_POWER + DOUBT_COST * tried
    return cost[group], cost


def need_of(
    overlapped: BoolArray, new: BoolArray, confidence: FloatArray, sigma_z_um: FloatArray
) -> FloatArray:
    """How much each particle (N,) needs a fit, 1 to 5."""
    typical = float(np.nanmedian(sigma_z_um)) if np.isfinite(sigma_z_um).any() else 1.0
    unsure = np.clip(np.nan_to_num(sigma_z_um / max(typical, 1e-9), nan=2.0) - 1.0, 0.0, 1.0)
    need: FloatArray = (
        1.0
        + OVERLAPPED_NEED * overlapped
        + NEW_NEED * new
        + DOUBTFUL_NEED * np.clip(1.0 - confidence, 0.0, 1.0)
        + UNSURE_NEED * unsure
    )
    return need


def choose(
    group: IntArray, cost: FloatArray, need: FloatArray, waited: FloatArray, credit: float, lot: int = -1
) -> tuple[BoolArray, float]:
    """The particles (N,) that are fitted, whole groups of them, and what their fit costs.

    `group` (N,) below N, `cost` (N,) of each group by its number, `waited` (N,) frames since the last fit, this one
    included. Groups are taken as long as the cost so far is below `credit`: the last one may exceed it, and its
    excess is to be taken off the next frame's credit. In one of `LOTTERY` frames, by the number `lot` of the
    frame, the order is drawn, not that of value.
    """
    value = np.bincount(group, need * waited**2, minlength=len(group))
    held = np.unique(group)
    if lot >= 0 and lot % LOTTERY == LOTTERY - 1:
        order = np.random.default_rng(lot).permutation(held)
    else:
        order = held[np.argsort(-(value[held] / cost[held]), kind="stable")]
    before = np.cumsum(cost[order]) - cost[order]
    taken = order[before < credit]
    return np.isin(group, taken), float(cost[taken].sum())
