"""Which detections each track may take, and what a link costs: the mixture of the models of motion."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from tracking.candidates import OVERFLOW, Grid, Rows, clip_index
from tracking.flow_field import Flow
from tracking.switching.merging import as_of_one, log_mixture
from tracking.switching.motion import (
    EXISTS,
    MODELS,
    MU,
    PP,
    ROWS,
    TIME,
    Motion,
    P,
    V,
    mean_of,
    predict_one,
)

UNSEEN = 0.3
"""Part of the detection probability of a particle whose nearest slice is missing: its image reaches into the slices
beside it. Between 0.1 and 0.6 nothing changes but when half of a volume is missing."""


class Slices(NamedTuple):
    """The slices of a volume: heights `z` (n,), um, `time` (n,), s after the volume's, which are `missing` (n,).

    Empty for images.
    """

    z: Any
    time: Any
    missing: Any


class Chances(NamedTuple):
    """Probabilities of `detection` and, a frame, `survival` of a particle; `new`: ln of the density of new
    particles, um^-axes, false ones included; `widest` (3,), um^2, of the variances of detections."""

    detection: float
    survival: float
    new: float
    widest: Any


@njit(cache=True, nogil=True, error_model="numpy")
def nearest_slice(slices: Any, z: float) -> int:
    """The slice nearest to a height; -1 where there are none."""
    best = -1
    for k in range(slices.z.size):
        if best < 0 or abs(slices.z[k] - z) < abs(slices.z[best] - z):
            best = k
    return best


@njit(cache=True, nogil=True, error_model="numpy")
def time_at(slices: Any, z: float) -> Any:
    """When a height was imaged, s after the volume's time, between the slices; 0 where that is not known."""
    n = slices.time.size
    if n == 0:
        return 0.0
    if n == 1 or z <= slices.z[0]:
        return slices.time[0]
    for k in range(1, n):
        if z <= slices.z[k]:
            part = (z - slices.z[k - 1]) / (slices.z[k] - slices.z[k - 1])
            return slices.time[k - 1] + part * (slices.time[k] - slices.time[k - 1])
    return slices.time[n - 1]


@njit(cache=True, nogil=True, error_model="numpy")
def predict_all(
    state: Any, count: int, axes: int, now: float, height: float, motion: Any, flow: Any, chances: Any, slices: Any,
    seen: Any, work: Any,
) -> None:  # fmt: skip
    """Predict all tracks to the time at which their own slices are imaged in the frame of time `now`, s.

    `height` is the focus of the first slice. `seen` (count,) gets the probability that each is detected if it is
    there.
    """
    motion, flow, chances, slices = Motion(*motion), Flow(*flow), Chances(*chances), Slices(*slices)
    for i in range(count):
        time = now
        if axes == 3 and slices.time.size > 0:
            z = mean_of(state, i, 2, P)
            z += mean_of(state, i, 2, V) * (now - state[TIME, i])
            time = now + time_at(slices, z - height)
        dt = max(time - state[TIME, i], 1e-3 * motion.frame_s)
        predict_one(state, i, axes, dt, motion, flow, work)
        state[TIME, i] += dt
        state[EXISTS, i] *= chances.survival ** (dt / motion.frame_s)
        seen[i] = chances.detection
        if axes == 3 and slices.missing.size > 0:
            k = nearest_slice(slices, mean_of(state, i, 2, P) - height)
            if k >= 0 and slices.missing[k]:
                seen[i] *= UNSEEN


@njit(cache=True, nogil=True, error_model="numpy")
def gate(
    state: Any, rows: int, axes: int, z: Any, variances: Any, times: Any, points: int, chances: Any, seen: Any,
    grid: Any, found: Any, merged: Any,
) -> int:  # fmt: skip
    """Fill the first `rows` of `found` (`Rows`) with the detections that a track rather takes than none.

    The cost is -2 ln of e p L / (1 - e p): e is the probability that the particle is still there, p that it is then
    detected, L the density of the detection in the mixture of the models. No link costs -2 ln of the density of new
    particles. `times` (M,), s, is when each detection was imaged. `merged` is what `merging.pair_up` found: the
    detection may be that of two. Returns how many were found, or `OVERFLOW`.
    """
    chances, grid, into = Chances(*chances), Grid(*grid), Rows(*found)
    partner, chance, place, spread = merged
    of_z, of_variance = np.zeros((3, 1)), np.zeros((3, 1))
    geometry, starts, order, ordered = grid.geometry, grid.starts, grid.order, grid.ordered
    indptr, indices, costs = into.indptr, into.indices, into.costs
    no_link = -2.0 * chances.new
    widest = chances.widest
    scale, columns, lines = geometry[2], int(geometry[3]), int(geometry[4])
    count = 0
    indptr[0] = 0
    for i in range(rows):
        if columns > 0 and points > 0:
            hit = state[EXISTS, i] * seen[i]
            odds = math.log(hit / (1.0 - hit))
            low_x, high_x, low_y, high_y = 1e300, -1e300, 1e300, -1e300
            for m in range(MODELS):
                at = m * ROWS
                det = 1.0
                for a in range(axes):
                    det *= 2.0 * math.pi * state[at + PP + a, i]
                limit = 2.0 * (odds + math.log(MODELS * state[MU + m, i]) - chances.new) - math.log(det)
                if limit <= 0.0:
                    continue
                x, y = state[at + P, i], state[at + P + 1, i]
                reach_x = math.sqrt(limit * (state[at + PP, i] + widest[0]))
                reach_y = math.sqrt(limit * (state[at + PP + 1, i] + widest[1]))
                low_x, high_x = min(low_x, x - reach_x), max(high_x, x + reach_x)
                low_y, high_y = min(low_y, y - reach_y), max(high_y, y + reach_y)
            if high_x < low_x:
                low_x, high_x, low_y, high_y = place[0, i], place[0, i], place[1, i], place[1, i]
            k = partner[i]
            if k >= 0:
                half_x, half_y = 0.5 * abs(place[0, k] - place[0, i]), 0.5 * abs(place[1, k] - place[1, i])
                low_x, high_x, low_y, high_y = (
                    low_x - half_x,
                    high_x + half_x,
                    low_y - half_y,
                    high_y + half_y,
                )
            if k < 0 and high_x <= low_x:
                indptr[i + 1] = count
                continue
            first_column = clip_index((low_x - geometry[0]) * scale, columns - 1)
            last_column = clip_index((high_x - geometry[0]) * scale, columns - 1)
            first_line = clip_index((low_y - geometry[1]) * scale, lines - 1)
            last_line = clip_index((high_y - geometry[1]) * scale, lines - 1)
            for line in range(first_line, last_line + 1):
                begin = starts[line * columns + first_column]
                for k in range(begin, starts[line * columns + last_column + 1]):
                    if not (low_x <= ordered[0, k] <= high_x and low_y <= ordered[1, k] <= high_y):
                        continue
                    j = order[k]
                    later = times[j] - state[TIME, i]
                    log = log_mixture(state, i, axes, z, variances, j, later)
                    other = partner[i]
                    if other >= 0:
                        as_of_one(i, other, axes, z, variances, j, place, spread, of_z, of_variance)
                        both = log_mixture(state, i, axes, of_z, of_variance, 0, later) + axes * math.log(2.0)
                        alone = log + math.log(1.0 - chance[i])
                        both += math.log(chance[i])
                        log = max(alone, both) + math.log1p(math.exp(-abs(alone - both)))
                    cost = -2.0 * (odds + log)
                    if cost >= no_link:
                        continue
                    if count == indices.size:
                        return OVERFLOW
                    indices[count] = j
                    costs[count] = cost
                    count += 1
        indptr[i + 1] = count
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def chosen_costs(rows: int, found: Any, links: Any, no_link: float, costs: Any) -> None:
    """Fill `costs` (rows,) with those of the chosen links, `no_link` for none."""
    indptr, indices, every = found
    for i in range(rows):
        costs[i] = no_link
        for k in range(indptr[i], indptr[i + 1]):
            if indices[k] == links[i]:
                costs[i] = every[k]
