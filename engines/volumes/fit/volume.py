"""All particles of a volume: groups are fitted one after the other, each with the light of the others taken away."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.volumes.fit.arguments import (
    BOX,
    PARTICLE,
    A,
    BoolArray,
    Float32Array,
    FloatArray,
    IntArray,
    KernelPsf,
    Room,
    Stack,
    Z,
)
from engines.volumes.fit.grouping import LARGEST_GROUP, groups_of
from engines.volumes.fit.joint_fit import fit_window, keep_within, open_window, set_window
from engines.volumes.fit.normal_equations import deviance, fill_light, fill_weights, take_reference
from engines.volumes.fit.rendering import put, render, set_box, volume_of

SWEEPS = 3
"""Most rounds over all groups. The second and third are only for groups that see each other's light."""
RENEWALS = 3
"""Most times that the boxes of a group are placed anew."""
WALK_SIGMAS = 0.4
"""Standard deviations of the PSF that a particle may walk in a fit before its box is placed anew."""


@njit(cache=True, nogil=True)
def _most_slices(heights: FloatArray, reach: float) -> int:
    """The most slices that a box of this `reach` to both sides can hold."""
    most, first = 0, 0
    for last in range(heights.size):
        while heights[last] - heights[first] > 2.0 * reach:
            first += 1
        most = max(most, last + 1 - first)
    return most


@njit(cache=True, nogil=True)
def make_room(psf: KernelPsf, stack: Stack, voxels: int) -> Room:
    """Work space for windows of up to so many `voxels`."""
    shape = stack.image.shape
    box = _most_slices(stack.heights, psf.reach[Z])
    for axis in range(1, 3):
        box *= min(int(2.0 * psf.reach[axis]) + 2, shape[axis])
    longest = max(shape[0], shape[1], shape[2])
    _, high, long = psf.coefficients.shape
    return Room(
        np.empty((LARGEST_GROUP + 2, 4, box), np.float32),
        np.empty((LARGEST_GROUP + 2, 4, box), np.float32),
        np.empty(voxels, np.float32),
        np.empty(voxels, np.float32),
        np.empty(voxels, np.float32),
        np.empty(voxels, np.float32),
        np.empty(voxels, np.float32),
        np.empty(voxels, np.float32),
        np.empty(voxels, np.float32),
        np.empty((3, 2, longest + 1), np.float32),
        np.empty((2, box), np.float32),
        np.zeros((5, high, long), np.float32),
    )


@njit(cache=True, nogil=True)
def _boxes_of(theta: FloatArray, stack: Stack, psf: KernelPsf) -> IntArray:
    boxes = np.empty((theta.shape[0], BOX), np.int64)
    for k in range(theta.shape[0]):
        set_box(theta[k], stack.heights, stack.image.shape, psf, boxes[k])
    return boxes


@njit(cache=True, nogil=True)
def _room_for(boxes: IntArray, stack: Stack, psf: KernelPsf, room: Room) -> Room:
    """`room`, or a larger one where the window of the `boxes` needs it."""
    window = np.empty(BOX, np.int64)
    set_window(boxes, window)
    size = volume_of(window)
    return room if size <= room.data.size else make_room(psf, stack, size + size // 2)


@njit(cache=True, nogil=True)
def _walked(theta: FloatArray, before: FloatArray, psf: KernelPsf) -> float:
    """The farthest that one of the particles (n, 4) went along an axis, in standard deviations of the PSF."""
    far = 0.0
    for k in range(theta.shape[0]):
        for axis in range(3):
            far = max(far, abs(theta[k, axis] - before[k, axis]) / psf.sigma[axis])
    return far


@njit(cache=True, nogil=True)
def fit_group(
    theta: FloatArray, ground: FloatArray, others: Float32Array, stack: Stack, psf: KernelPsf, room: Room
) -> tuple[int, Room]:
    """Fit the particles `theta` (n, 4) of a group and its `ground` (1,) in place; returns how it ended.

    `others` (D, H, W) is the light of all other particles.
    """
    n = theta.shape[0]
    held = np.zeros(PARTICLE * n + 1, np.bool_)
    covariance = np.empty((PARTICLE * n + 1, PARTICLE * n + 1))
    window, state = np.empty(BOX, np.int64), 0
    for _ in range(RENEWALS):
        boxes = _boxes_of(theta, stack, psf)
        room = _room_for(boxes, stack, psf, room)
        open_window(stack, others, boxes, window, room)
        before = theta.copy()
        state, _ = fit_window(theta, ground, held, boxes, window, stack, psf, room, covariance)
        if _walked(theta, before, psf) < WALK_SIGMAS:
            break
    return state, room


@njit(cache=True, nogil=True)
def judge_group(
    theta: FloatArray,
    ground: FloatArray,
    others: Float32Array,
    stack: Stack,
    psf: KernelPsf,
    room: Room,
    covariance: FloatArray,
    fit: FloatArray,
) -> Room:
    """Fill `covariance` (n, 4, 4) of each particle, and `fit` (n, 2): log-likelihood ratio, reduced chi-square.

    The ratio is 2 ln of the likelihood with the particle over that without it, where the amplitudes of the others
    and the ground are fitted again and their places stay; negative for a particle that takes light away.
    """
    n = theta.shape[0]
    boxes, window = _boxes_of(theta, stack, psf), np.empty(BOX, np.int64)
    room = _room_for(boxes, stack, psf, room)
    open_window(stack, others, boxes, window, room)
    size, total = volume_of(window), PARTICLE * n + 1
    whole, held = np.empty((total, total)), np.zeros(total, np.bool_)
    fit_window(theta, ground, held, boxes, window, stack, psf, room, whole)
    for k in range(n):
        covariance[k] = whole[PARTICLE * k : PARTICLE * (k + 1), PARTICLE * k : PARTICLE * (k + 1)]
        render(theta[k], boxes[k], stack.heights, psf, False, room, room.images[k])
    fill_light(room.images, theta, ground[0], boxes, window, room)
    fill_weights(stack, size, room)
    tall, wide = window[3] - window[2], window[5] - window[4]
    for k in range(n):
        squares, count, b = 0.0, 0, boxes[k]
        for i in range(b[0] - window[0], b[1] - window[0]):
            for j in range(b[2] - window[2], b[3] - window[2]):
                start = (i * tall + j) * wide
                for t in range(start + b[4] - window[4], start + b[5] - window[4]):
                    squares += room.weight[t] * room.residual[t] ** 2
                    count += room.weight[t] > 0.0
        fit[k, 1] = squares / max(count - PARTICLE - 1, 1)
    without, plain = np.empty_like(theta), np.empty(1)
    for k in range(n):
        for m in range(n):
            render(theta[m], boxes[m], stack.heights, psf, False, room, room.images[m])
        fill_light(room.images, theta, ground[0], boxes, window, room)
        take_reference(size, room)
        without[:] = theta
        without[k, A] = 0.0
        fill_light(room.images, without, ground[0], boxes, window, room)
        worse = deviance(stack, size, room)
        held[:] = True
        for m in range(n):
            held[PARTICLE * m + A] = m == k
        held[total - 1] = False
        plain[:] = ground
        _, better = fit_window(without, plain, held, boxes, window, stack, psf, room, whole)
        ratio = max(worse + better, 0.0)
        fit[k, 0] = ratio if theta[k, A] > 0.0 else -ratio
    return room


@njit(cache=True, nogil=True)
def _members(group: IntArray, usable: BoolArray) -> tuple[IntArray, IntArray]:
    """The particles in the order of their groups, and where each group begins, the last end included."""
    order = np.argsort(group)
    kept = order[usable[order]]
    begins = [0]
    for p in range(1, kept.size):
        if group[kept[p]] != group[kept[p - 1]]:
            begins.append(p)
    if kept.size > 0:
        begins.append(kept.size)
    return kept, np.array(begins)


@njit(cache=True, nogil=True)
def fit_volume(
    stack: Stack,
    psf: KernelPsf,
    theta: FloatArray,
    usable: BoolArray,
    ground: FloatArray,
    covariance: FloatArray,
    fit: FloatArray,
) -> None:
    """Fit the `usable` (N,) of the particles `theta` (N, 4) in place.

    Fills `ground` (N,), the background's difference from the given one, `covariance` (N, 4, 4) and `fit` (N, 2) of
    `judge_group`.
    """
    others = np.zeros(stack.image.shape, np.float32)
    room = make_room(psf, stack, 4096)
    for i in range(theta.shape[0]):
        if usable[i]:
            keep_within(theta[i], stack, psf)
            put(others, theta[i], theta[i, A], stack.heights, psf, room)
    changed = usable.copy()
    one = np.zeros(1)
    for sweep in range(SWEEPS):
        group, touches = groups_of(theta, usable, psf)
        members, begins = _members(group, usable)
        any_left = False
        for g in range(begins.size - 1):
            mine = members[begins[g] : begins[g + 1]]
            if sweep > 0 and not touches[mine].any():
                continue
            any_left = True
            for i in mine:
                put(others, theta[i], -theta[i, A], stack.heights, psf, room)
            now = theta[mine]
            one[0] = ground[mine].mean()
            _, room = fit_group(now, one, others, stack, psf, room)
            for k in range(mine.size):
                i = mine[k]
                theta[i] = now[k]
                ground[i] = one[0]
                put(others, theta[i], theta[i, A], stack.heights, psf, room)
        if not any_left:
            break
    group, touches = groups_of(theta, usable, psf)
    members, begins = _members(group, usable)
    for g in range(begins.size - 1):
        mine = members[begins[g] : begins[g + 1]]
        for i in mine:
            put(others, theta[i], -theta[i, A], stack.heights, psf, room)
        now, spread, found = theta[mine], covariance[mine], fit[mine]
        one[0] = ground[mine].mean()
        room = judge_group(now, one, others, stack, psf, room, spread, found)
        for k in range(mine.size):
            i = mine[k]
            theta[i], covariance[i], fit[i] = now[k], spread[k], found[k]
            ground[i] = one[0]
            put(others, theta[i], theta[i, A], stack.heights, psf, room)
