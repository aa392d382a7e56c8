"""All particles of a volume: groups are fitted one by one, each with the light of the others taken away."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.volumes.fit.arguments import (
    PARTICLE,
    A,
    BoolArray,
    Float32Array,
    FloatArray,
    IntArray,
    KernelPsf,
    Room,
    Stack,
)
from engines.volumes.fit.grouping import LARGEST_GROUP, groups_of
from engines.volumes.fit.joint_fit import keep_within
from engines.volumes.fit.judgement import NUMBERS, judge_group
from engines.volumes.fit.particle_count import find_more
from engines.volumes.fit.rendering import put
from engines.volumes.fit.windows import SPARE, fit_group, make_room

SWEEPS = 3
"""Rounds over all groups: a first one, one with the residual search, and one for groups that then see light that
has changed."""
FIRST_VOXELS = 4096
"""Voxels of a window for which there is room at first."""


@njit(cache=True, nogil=True)
def in_groups(group: IntArray, usable: BoolArray) -> tuple[IntArray, IntArray]:
    """The usable particles in the order of their groups, and where each group begins, the last end included."""
    n = group.size
    begin, count = np.zeros(n + 1, np.int64), 0
    for i in range(n):
        if usable[i]:
            begin[group[i] + 1] += 1
            count += 1
    for i in range(n):
        begin[i + 1] += begin[i]
    members, filled = np.empty(count, np.int64), begin.copy()
    for i in range(n):
        if usable[i]:
            members[filled[group[i]]] = i
            filled[group[i]] += 1
    return members, begin


@njit(cache=True, nogil=True)
def put_all(
    others: Float32Array, theta: FloatArray, n: int, sign: float, stack: Stack, psf: KernelPsf, room: Room
) -> None:
    """Add the light of the first `n` particles `theta` (N, 4), times `sign`, to `others` (D, H, W)."""
    for k in range(n):
        put(others, theta[k], sign * theta[k, A], stack.heights, psf, room)


@njit(cache=True, nogil=True)
def light_of(theta: FloatArray, usable: BoolArray, stack: Stack, psf: KernelPsf) -> Float32Array:
    """The light (D, H, W) of the `usable` (N,) particles `theta` (N, 4), which are put into the volume."""
    light = np.zeros(stack.image.shape, np.float32)
    room = make_room(psf, stack, FIRST_VOXELS)
    for i in range(theta.shape[0]):
        if usable[i]:
            keep_within(theta[i], stack, psf)
            put(light, theta[i], theta[i, A], stack.heights, psf, room)
    return light


@njit(cache=True, nogil=True)
def fit_volume(
    stack: Stack,
    psf: KernelPsf,
    theta: FloatArray,
    count: int,
    usable: BoolArray,
    others: Float32Array,
    ground: FloatArray,
    covariance: FloatArray,
    fit: FloatArray,
    more: bool,
) -> int:
    """Fit the `usable` (N,) of the first `count` particles `theta` (N, 4) in place; returns how many are in use.

    The rest is room for particles that are found in the residual, which is done where `more` are looked for. Fills
    `usable` and, for the usable ones, `ground` (N,), the background's difference from the given one, `covariance`
    (N, 4, 4) and `fit` (N, 2) of `judge_group`.
    """
    room = make_room(psf, stack, FIRST_VOXELS)
    most = LARGEST_GROUP + SPARE
    now, source, one = np.empty((most, PARTICLE)), np.empty(most, np.int64), np.zeros(1)
    spread, numbers = np.empty((most, PARTICLE, PARTICLE)), np.empty((most, NUMBERS))
    grown = np.zeros(theta.shape[0], np.bool_)
    for sweep in range(SWEEPS + 1):
        last = sweep == SWEEPS
        group, touches = groups_of(theta[:count], usable[:count], psf)
        members, begin = in_groups(group, usable[:count])
        for g in range(begin.size - 1):
            n = begin[g + 1] - begin[g]
            if n == 0:
                continue
            touched = False
            one[0] = 0.0
            for k in range(n):
                i = members[begin[g] + k]
                source[k] = i
                touched |= touches[i] or grown[i]
                one[0] += ground[i] / n
                for p in range(PARTICLE):
                    now[k, p] = theta[i, p]
            if not (sweep < 2 or touched or last):
                continue
            put_all(others, now, n, -1.0, stack, psf, room)
            if not last and (sweep == 0 or touched):
                room = fit_group(now[:n], one, others, stack, psf, room)
            before = n
            if sweep == 1 and more:
                n, room = find_more(now[: min(n + SPARE, most)], n, one, others, stack, psf, room)
            if last:
                n, room = judge_group(now, n, one, source, others, stack, psf, room, spread, numbers)
                for k in range(before):
                    usable[members[begin[g] + k]] = False
            for k in range(n):
                row = source[k] if k < before else count
                if row == theta.shape[0]:
                    n = k
                    break
                count += row == count
                usable[row] = True
                grown[row] = n > before
                ground[row] = one[0]
                for p in range(PARTICLE):
                    theta[row, p] = now[k, p]
                if last:
                    for p in range(PARTICLE):
                        for q in range(PARTICLE):
                            covariance[row, p, q] = spread[k, p, q]
                    for p in range(NUMBERS):
                        fit[row, p] = numbers[k, p]
            put_all(others, now, n, 1.0, stack, psf, room)
    return count
