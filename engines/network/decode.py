"""Decoding of the network's maps into particles; the same for every back end.

The network splits a particle's probability over the slots and cells that could hold it. So slots that agree within
their standard errors are merged, as long as they do not add up to more than one particle; then each group of
neighbours keeps as many particles as its probabilities add up to.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from engines.network.chains import chains
from engines.network.layout import (
    CHANNELS,
    LEAST_LEARNT_SIGMA,
    LEAST_SIGMA,
    LOG_SIGMA_RANGE,
    LOGIT,
    SIGMA_BRIGHTNESS,
    SIGMA_X,
    SLOTS,
    STRIDE,
    X,
)

FloatArray = npt.NDArray[np.float64]

LEAST_PROBABILITY = 0.03
"""Slots with less are not read, which is nearly all of 460,000 in a frame of 3.7 megapixels. Lower costs time;
higher takes probability away from particles that are split over many slots."""
LEAST_LOGIT = math.log(LEAST_PROBABILITY / (1 - LEAST_PROBABILITY))
ONE_PARTICLE = 1.3
"""Sum of probabilities up to which slots are merged into one particle: 1, and some error of the probabilities.
Lower makes second detections of one particle, higher merges two particles."""
LEAST_DOUBT = 0.1
"""Merged probability from which what was not kept is offered to the fit, which decides by the pixels; lower only
costs time."""
SAME_DISTANCE2 = 9.0
"""Squared distance, in standard errors, below which two slots agree: three standard deviations."""
SAME_PX = 8.0
"""px beyond which slots are not compared: two cells, as a particle is shared among the 3 x 3 cells around it."""
GROUP_PX = 10.0
"""px within which particles belong to one group whose probabilities are added up: a little more than `SAME_PX`."""
SAME_FLOOR = (0.3, 0.3, 0.02)
"""px, px and half depth ranges, added in quadrature to the standard errors: slots closer than this always agree."""

ROW = ("x_px", "y_px", "z", "brightness", "sigma_x_px", "sigma_y_px", "sigma_z", "confidence")
"""Columns of what `decode` returns; z and its standard error in half depth ranges. Of a network for several kinds
of particles the probability of each class follows, of one that learns more the values of these numbers and their
standard errors, in half ranges."""
_P = 7
_FRACTION_BITS, _INDEX_BITS = 35, 26
_LEAST_SIGMA = np.array(LEAST_SIGMA)
_LOG_SIGMA_MIN, _LOG_SIGMA_MAX = LOG_SIGMA_RANGE


def decode(maps: npt.NDArray[np.float32], learnt: int = 0) -> FloatArray:
    """Particles (N, 8), columns `ROW`, of one image's maps or planes (`slots_of`), the strongest first.

    `confidence` is the merged probability, plus the particle's share of the probability left over in its group.
    `learnt` is how many numbers the network learnt beside these.
    """
    return particles_of(slots_of(maps, learnt), learnt)


def slots_of(maps: npt.NDArray[np.float32], learnt: int = 0) -> FloatArray:
    """Slots (N, 8) of one image that may be particles, in rising order of slot or of cell.

    Both forms of the network's output are read: maps (H/4, W/4, slots, values), and the planes
    (planes, H/4, W/4) of a model file, of which only the slots above the least logit are. Raises
    `ValueError` for values that are not finite.
    """
    if maps.ndim == 3:
        slots, sound = _collect_planes(maps, LEAST_LOGIT, learnt)
    else:
        slots, sound = _collect(maps, LEAST_LOGIT, learnt), bool(np.isfinite(maps).all())
    if not sound:
        raise ValueError("the network gave values that are not finite numbers")
    return slots


def particles_of(slots: FloatArray, learnt: int = 0) -> FloatArray:
    """Particles (M, 8), the strongest first, of slots (N, 8); columns `ROW`, of slots with their probability."""
    return particles_and_doubts_of(slots, learnt)[0]


def particles_and_doubts_of(slots: FloatArray, learnt: int = 0) -> tuple[FloatArray, FloatArray]:
    """Particles as `particles_of` gives them, and (K, 8) what was merged but is too unlikely to be one."""
    if not slots.shape[0]:
        return np.empty((0, slots.shape[1])), np.empty((0, slots.shape[1]))
    merged = _merge(_strongest_first(slots), np.array(SAME_FLOOR), learnt)
    merged = _strongest_first(merged)
    kept = _keep(merged)
    return merged[kept], merged[~kept & (merged[:, _P] > LEAST_DOUBT)]


def compile_decoding() -> None:
    """Compile, or load, all that a model file's planes need, whatever the images: none is read yet."""
    planes = np.zeros((SLOTS * CHANNELS, 4, 4), np.float32)
    planes[LOGIT::CHANNELS] = 1.0
    decode(planes)


def _strongest_first(rows: FloatArray) -> FloatArray:
    """Rows in falling order of probability, equal ones in their old order.

    They are sorted as distinct whole numbers (probability and place), five times as fast as by a stable sort.
    """
    weak = ((2.0 - rows[:, _P]) * (1 << _FRACTION_BITS)).astype(np.int64)
    ordered: FloatArray = rows[np.argsort((weak << _INDEX_BITS) + np.arange(len(rows)))]
    return ordered


@njit(cache=True, nogil=True)
def fill_slot(values: Any, row: int, column: int, out: Any, learnt: int) -> None:
    """Fill `out` with the slot of `values` in a cell: columns `ROW`, then the probabilities of its classes.

    The values of the `learnt` numbers and their standard errors come last in both.
    """
    out[0] = STRIDE * (column + 0.5 + values[X]) - 0.5
    out[1] = STRIDE * (row + 0.5 + values[X + 1]) - 0.5
    out[2] = values[X + 2]
    out[3] = values[X + 3]
    out[4] = STRIDE * values[SIGMA_X]
    out[5] = STRIDE * values[SIGMA_X + 1]
    out[6] = values[SIGMA_X + 2]
    out[7] = 1.0 / (1.0 + math.exp(-values[LOGIT]))
    largest, total = -np.inf, 0.0
    first_learnt = values.size - 2 * learnt
    for k in range(CHANNELS, first_learnt):
        largest = max(largest, values[k])
    for k in range(CHANNELS, first_learnt):
        out[k - 1] = math.exp(values[k] - largest)
        total += out[k - 1]
    for k in range(CHANNELS, first_learnt):
        out[k - 1] /= total
    for k in range(first_learnt, values.size):
        out[k - 1] = values[k]


@njit(cache=True, nogil=True)
def _collect(maps: Any, least_logit: float, learnt: int) -> FloatArray:
    height, width, slots, size = maps.shape
    count = 0
    for row in range(height):
        for column in range(width):
            for slot in range(slots):
                count += maps[row, column, slot, LOGIT] > least_logit
    found = np.empty((count, size - 1))
    n = 0
    for row in range(height):
        for column in range(width):
            for slot in range(slots):
                values = maps[row, column, slot]
                if values[LOGIT] > least_logit:
                    fill_slot(values, row, column, found[n], learnt)
                    n += 1
    return found


@njit(cache=True, nogil=True)
def _count(plane: Any, least_logit: float) -> tuple[int, int]:
    """How many values of a plane are above the least logit, and how many are not finite."""
    least, largest = np.float32(least_logit), np.float32(np.inf)
    above, wrong = 0, 0
    for row in range(plane.shape[0]):
        for column in range(plane.shape[1]):
            value = plane[row, column]
            above += value > least
            wrong += not abs(value) < largest
    return above, wrong


@njit(cache=True, nogil=True)
def _collect_planes(planes: Any, least_logit: float, learnt: int) -> tuple[FloatArray, bool]:
    number, height, width = planes.shape
    count, wrong = 0, 0
    classes = number // SLOTS - CHANNELS - 2 * learnt
    first_class, first_learnt = SLOTS * CHANNELS, SLOTS * (CHANNELS + classes)
    for slot in range(SLOTS):
        above, unsound = _count(planes[slot * CHANNELS + LOGIT], least_logit)
        count += above
        wrong += unsound
    if wrong:
        return np.empty((0, 8)), False
    found = np.empty((count, CHANNELS - 1 + classes + 2 * learnt))
    values = np.empty(CHANNELS + classes + 2 * learnt)
    n = 0
    for slot in range(SLOTS):
        first = slot * CHANNELS
        for row in range(height):
            for column in range(width):
                if planes[first + LOGIT, row, column] > least_logit:
                    for channel in range(CHANNELS):
                        values[channel] = planes[first + channel, row, column]
                    for channel in range(SIGMA_X, SIGMA_BRIGHTNESS + 1):
                        log_sigma = min(max(values[channel], _LOG_SIGMA_MIN), _LOG_SIGMA_MAX)
                        values[channel] = _LEAST_SIGMA[channel - SIGMA_X] + math.exp(log_sigma)
                    for k in range(classes):
                        values[CHANNELS + k] = planes[first_class + slot * classes + k, row, column]
                    for k in range(2 * learnt):
                        value = planes[first_learnt + slot * 2 * learnt + k, row, column]
                        if k >= learnt:
                            log_sigma = min(max(value, _LOG_SIGMA_MIN), _LOG_SIGMA_MAX)
                            value = LEAST_LEARNT_SIGMA + math.exp(log_sigma)
                        values[CHANNELS + classes + k] = value
                    fill_slot(values, row, column, found[n], learnt)
                    n += 1
    return found, bool(np.isfinite(found).all())


@njit(cache=True, nogil=True)
def _merge(slots: Any, floor: Any, learnt: int) -> FloatArray:
    """Particles (M, 8) of slots (N, 8) in falling order: each takes in those that agree with it, nearest first.

    Columns beyond the eighth are averaged like the positions; the last ones, standard errors of the `learnt`
    numbers before them, become those of the mixture.
    """
    count, columns = slots.shape
    errors = columns - learnt
    cell, first, following = chains(slots, SAME_PX)
    free = np.ones(count, np.bool_)
    merged = np.empty((count, columns))
    near = np.empty(count, np.int64)
    distance = np.empty(count)
    mean, square = np.empty(4), np.empty(3)
    found = 0
    for seed in range(count):
        if not free[seed]:
            continue
        free[seed] = False
        nearby = 0
        for i in range(cell[seed, 0] - 1, cell[seed, 0] + 2):
            for j in range(cell[seed, 1] - 1, cell[seed, 1] + 2):
                other = first[i, j]
                while other >= 0:
                    if free[other]:
                        dx, dy = slots[seed, 0] - slots[other, 0], slots[seed, 1] - slots[other, 1]
                        apart = np.inf if dx * dx + dy * dy >= SAME_PX**2 else 0.0
                        for axis in range(3):
                            variance = slots[seed, 4 + axis] ** 2 + slots[other, 4 + axis] ** 2
                            step = slots[seed, axis] - slots[other, axis]
                            apart += step * step / (variance + floor[axis] ** 2)
                        if apart < SAME_DISTANCE2:
                            near[nearby] = other
                            distance[nearby] = apart
                            nearby += 1
                    other = following[other]
        for place in range(1, nearby):
            other, apart, before = near[place], distance[place], place - 1
            while before >= 0 and distance[before] > apart:
                near[before + 1], distance[before + 1] = near[before], distance[before]
                before -= 1
            near[before + 1], distance[before + 1] = other, apart
        total = slots[seed, _P]
        for axis in range(4):
            mean[axis] = total * slots[seed, axis]
        for axis in range(3):
            square[axis] = total * (slots[seed, axis] ** 2 + slots[seed, 4 + axis] ** 2)
        for column in range(8, errors):
            merged[found, column] = total * slots[seed, column]
        for column in range(errors, columns):
            merged[found, column] = total * (slots[seed, column] ** 2 + slots[seed, column - learnt] ** 2)
        for place in range(nearby):
            other = near[place]
            p = slots[other, _P]
            if total + p > ONE_PARTICLE:
                continue
            free[other] = False
            total += p
            for axis in range(4):
                mean[axis] += p * slots[other, axis]
            for axis in range(3):
                square[axis] += p * (slots[other, axis] ** 2 + slots[other, 4 + axis] ** 2)
            for column in range(8, errors):
                merged[found, column] += p * slots[other, column]
            for column in range(errors, columns):
                square_here = slots[other, column] ** 2 + slots[other, column - learnt] ** 2
                merged[found, column] += p * square_here
        for axis in range(4):
            merged[found, axis] = mean[axis] / total
        for axis in range(3):
            variance = square[axis] / total - merged[found, axis] ** 2
            merged[found, 4 + axis] = math.sqrt(max(variance, 1e-12))
        for column in range(8, columns):
            merged[found, column] /= total
        for column in range(errors, columns):
            variance = merged[found, column] - merged[found, column - learnt] ** 2
            merged[found, column] = math.sqrt(max(variance, 1e-12))
        merged[found, _P] = total
        found += 1
    return merged[:found]


@njit(cache=True, nogil=True)
def _root(parent: Any, n: int) -> int:
    while parent[n] != n:
        parent[n] = parent[parent[n]]
        n = parent[n]
    return n


@njit(cache=True, nogil=True)
def _keep(rows: Any) -> Any:
    """Which rows (N, 8), in falling order, are particles; fills in their confidence."""
    count = rows.shape[0]
    cell, first, following = chains(rows, GROUP_PX)
    parent = np.arange(count)
    for n in range(count):
        for i in range(cell[n, 0] - 1, cell[n, 0] + 2):
            for j in range(cell[n, 1] - 1, cell[n, 1] + 2):
                other = first[i, j]
                while other >= 0:
                    dx, dy = rows[n, 0] - rows[other, 0], rows[n, 1] - rows[other, 1]
                    if other < n and dx * dx + dy * dy < GROUP_PX**2:
                        parent[_root(parent, n)] = _root(parent, other)
                    other = following[other]
    total, taken, lacking = np.zeros(count), np.zeros(count), np.zeros(count)
    for n in range(count):
        total[_root(parent, n)] += rows[n, _P]
    chosen = np.zeros(count, np.bool_)
    for n in range(count):
        group = _root(parent, n)
        if taken[group] < math.floor(total[group] + 0.5):
            taken[group] += 1
            chosen[n] = True
            lacking[group] += max(0.0, 1.0 - rows[n, _P])
    left = total.copy()
    for n in range(count):
        if chosen[n]:
            left[_root(parent, n)] -= min(1.0, rows[n, _P])
    for n in range(count):
        if chosen[n]:
            group = _root(parent, n)
            rows[n, _P] = min(1.0, rows[n, _P])
            if lacking[group] > 0:
                part = min(1.0, max(0.0, left[group]) / lacking[group])
                rows[n, _P] += part * (1.0 - rows[n, _P])
    return chosen
