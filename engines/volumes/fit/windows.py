"""Boxes and windows of a group of particles, with work space that is large enough for them."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.volumes.fit.arguments import (
    BOX,
    PARTICLE,
    Float32Array,
    FloatArray,
    IntArray,
    KernelPsf,
    Room,
    Stack,
    Z,
)
from engines.volumes.fit.grouping import LARGEST_GROUP
from engines.volumes.fit.joint_fit import fit_window, open_window, set_window
from engines.volumes.fit.normal_equations import fill_light, fill_weights
from engines.volumes.fit.rendering import WIDE, render, set_box, volume_of

SPARE = 3
"""Particles that may be added to the largest group."""
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
    box = _most_slices(stack.heights, WIDE * psf.reach[Z])
    for axis in range(1, 3):
        box *= min(int(2.0 * WIDE * psf.reach[axis]) + 2, shape[axis])
    longest = max(shape[0], shape[1], shape[2])
    _, high, long = psf.coefficients.shape
    most = LARGEST_GROUP + SPARE + 1
    return Room(
        np.empty((most, 4, box), np.float32),
        np.empty((most, 4, box), np.float32),
        np.empty(voxels, np.float32),
        np.empty(voxels, np.float32),
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
def boxes_of(theta: FloatArray, stack: Stack, psf: KernelPsf) -> IntArray:
    """The boxes (n, 6) of particles (n, 4) of a group."""
    boxes, widen = np.empty((theta.shape[0], BOX), np.int64), 1.0 if theta.shape[0] == 1 else WIDE
    for k in range(theta.shape[0]):
        set_box(theta[k], stack.heights, stack.image.shape, psf, widen, boxes[k])
    return boxes


@njit(cache=True, nogil=True)
def room_for(boxes: IntArray, stack: Stack, psf: KernelPsf, room: Room) -> Room:
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
) -> Room:
    """Fit the particles `theta` (n, 4) of a group and its `ground` (1,) in place.

    `others` (D, H, W) is the light of all other particles. Returns the work space.
    """
    n = theta.shape[0]
    held = np.zeros(PARTICLE * n + 1, np.bool_)
    covariance = np.empty((PARTICLE * n + 1, PARTICLE * n + 1))
    window, before = np.empty(BOX, np.int64), np.empty((n, PARTICLE))
    for _ in range(RENEWALS):
        boxes = boxes_of(theta, stack, psf)
        room = room_for(boxes, stack, psf, room)
        open_window(stack, others, boxes, window, room)
        for k in range(n):
            for i in range(PARTICLE):
                before[k, i] = theta[k, i]
        fit_window(theta, ground, held, boxes, window, stack, psf, room, covariance)
        if _walked(theta, before, psf) < WALK_SIGMAS:
            break
    return room


@njit(cache=True, nogil=True)
def fill_residual(
    theta: FloatArray,
    ground: FloatArray,
    boxes: IntArray,
    window: IntArray,
    stack: Stack,
    psf: KernelPsf,
    room: Room,
) -> None:
    """Fill `room.weight` and `room.residual` for the particles `theta` (n, 4) as they are."""
    for k in range(theta.shape[0]):
        render(theta[k], boxes[k], stack.heights, psf, False, room, room.images[k])
    fill_light(room.images, theta, ground[0], boxes, window, room)
    fill_weights(stack, volume_of(window), room)
