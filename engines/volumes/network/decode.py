"""Decoding of the volume network's planes into particles; the same for every back end.

The network splits a particle's probability over the cells that could hold it. So cells whose places agree within
their standard errors are merged, the likeliest first, as long as they do not add up to more than one particle.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from engines.network.chains import chains
from engines.volumes.network.layout import (
    BRIGHTNESS,
    CHANNELS,
    LEAST_SIGMA,
    LOG_SIGMA_RANGE,
    LOGIT,
    SIGMA_BRIGHTNESS,
    SIGMA_X,
    STEP,
    STRIDE,
    X,
    Y,
    Z,
)

FloatArray = npt.NDArray[np.float64]

ROW = ("x", "y", "z", "brightness", "sigma_x", "sigma_y", "sigma_z", "sigma_brightness", "probability")
"""Columns of what `decode` returns: voxels (x and y in pixels, z in slices), and brightness as in `layout`."""
LEAST_PROBABILITY = 0.03
"""Cells with less are not read. Lower costs time; higher takes probability away from faint particles, which are
split over many cells."""
LEAST_LOGIT = math.log(LEAST_PROBABILITY / (1 - LEAST_PROBABILITY))
ONE_PARTICLE = 1.3
"""Sum of probabilities up to which cells are merged into one particle: 1, and some error of the probabilities."""
SAME_DISTANCE2 = 9.0
"""Squared distance, in standard errors, below which two cells agree: three standard deviations."""
SAME_PX = 2.0 * STRIDE
"""px beyond which cells are not compared: two cells, as a particle is shared among those around it."""
SAME_FLOOR = 0.3
"""Voxels, added in quadrature to the standard errors: cells that are closer than this always agree."""
_P = len(ROW) - 1
_LEAST = np.array(LEAST_SIGMA)
_LOW, _HIGH = LOG_SIGMA_RANGE


def decode(planes: npt.NDArray[np.float32]) -> FloatArray:
    """Particles (N, 9), columns `ROW`, of one volume's planes (D, values, H/4, W/4), the likeliest first.

    Raises `ValueError` for values that are not finite.
    """
    rows, sound = _collect(planes, LEAST_LOGIT)
    if not sound:
        raise ValueError("the network gave values that are not finite numbers")
    if not len(rows):
        return rows
    merged = _merge(rows[np.argsort(-rows[:, _P], kind="stable")])
    return np.asarray(merged[np.argsort(-merged[:, _P], kind="stable")])


def planes_of(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Planes (D, values, H/4, W/4), as in model files, of the maps (D, H/4, W/4, values) that training has."""
    planes = np.ascontiguousarray(np.moveaxis(maps, -1, 1), np.float32)
    least = _LEAST.astype(np.float32)[:, None, None]
    planes[:, SIGMA_X:] = np.log(np.maximum(planes[:, SIGMA_X:] - least, np.float32(math.exp(_LOW))))
    return planes


@njit(cache=True, nogil=True)
def _collect(planes: Any, least_logit: float) -> tuple[FloatArray, bool]:
    """Rows of the cells above the least logit, and whether all logits, and all values of those, are finite."""
    layers, _, height, width = planes.shape
    count, sound = 0, True
    for layer in range(layers):
        for row in range(height):
            for column in range(width):
                logit = planes[layer, LOGIT, row, column]
                sound = sound and abs(logit) < np.inf
                count += logit > least_logit
    found = np.empty((count, CHANNELS))
    if not sound:
        return found[:0], False
    n = 0
    for layer in range(layers):
        for row in range(height):
            for column in range(width):
                values = planes[layer, :, row, column]
                if values[LOGIT] > least_logit:
                    found[n, 0] = STRIDE * (column + 0.5 + values[X]) - 0.5
                    found[n, 1] = STRIDE * (row + 0.5 + values[Y]) - 0.5
                    found[n, 2] = STEP * (layer + 0.5 + values[Z]) - 0.5
                    found[n, 3] = values[BRIGHTNESS]
                    for channel in range(SIGMA_X, SIGMA_BRIGHTNESS + 1):
                        log_sigma = min(max(values[channel], _LOW), _HIGH)
                        found[n, channel - 1] = _LEAST[channel - SIGMA_X] + math.exp(log_sigma)
                    found[n, 4] *= STRIDE
                    found[n, 5] *= STRIDE
                    found[n, 6] *= STEP
                    found[n, _P] = 1.0 / (1.0 + math.exp(-values[LOGIT]))
                    for column_of_row in range(CHANNELS):
                        sound = sound and abs(found[n, column_of_row]) < np.inf
                    n += 1
    return found, sound


@njit(cache=True, nogil=True)
def _apart(one: Any, other: Any) -> float:
    """Squared distance of two rows in their standard errors."""
    total = 0.0
    for axis in range(3):
        step = one[axis] - other[axis]
        total += step * step / (one[4 + axis] ** 2 + other[4 + axis] ** 2 + SAME_FLOOR**2)
    return total


@njit(cache=True, nogil=True)
def _merge(rows: Any) -> FloatArray:
    """Particles (M, 9) of rows (N, 9) in falling order: each takes in those that agree with it, nearest first."""
    count = rows.shape[0]
    square, first, following = chains(rows, SAME_PX)
    free = np.ones(count, np.bool_)
    merged = np.empty((count, CHANNELS))
    near, distance = np.empty(count, np.int64), np.empty(count)
    found = 0
    for seed in range(count):
        if not free[seed]:
            continue
        free[seed] = False
        nearby = 0
        for j in range(square[seed, 0] - 1, square[seed, 0] + 2):
            for i in range(square[seed, 1] - 1, square[seed, 1] + 2):
                other = first[j, i]
                while other >= 0:
                    if free[other]:
                        apart = _apart(rows[seed], rows[other])
                        if apart < SAME_DISTANCE2:
                            place = nearby
                            while place > 0 and distance[place - 1] > apart:
                                near[place], distance[place] = near[place - 1], distance[place - 1]
                                place -= 1
                            near[place], distance[place] = other, apart
                            nearby += 1
                    other = following[other]
        total = rows[seed, _P]
        for value in range(4):
            merged[found, value] = total * rows[seed, value]
            merged[found, 4 + value] = total * (rows[seed, value] ** 2 + rows[seed, 4 + value] ** 2)
        for place in range(nearby):
            other = near[place]
            p = rows[other, _P]
            if total + p > ONE_PARTICLE:
                continue
            free[other] = False
            total += p
            for value in range(4):
                merged[found, value] += p * rows[other, value]
                merged[found, 4 + value] += p * (rows[other, value] ** 2 + rows[other, 4 + value] ** 2)
        for value in range(4):
            merged[found, value] /= total
            variance = merged[found, 4 + value] / total - merged[found, value] ** 2
            merged[found, 4 + value] = math.sqrt(max(variance, 1e-12))
        merged[found, _P] = min(1.0, total)
        found += 1
    return merged[:found]
