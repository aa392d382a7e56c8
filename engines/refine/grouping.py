"""Which particles of a frame overlap so much that they are fitted together: blocks of overlapping rectangles."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.arguments import BoolArray, FloatArray, IntArray, Psf
from engines.refine.rendering import BOTTOM, BOX, LEFT, RIGHT, SPARE_UM, TOP, set_box

LARGEST_BLOCK = 6
"""Particles fitted together at most; the time of a step grows with the square. Larger clusters are cut where least
is shared, and their blocks are fitted again with the others' new images."""
SHARED = 0.1
"""Part of the smaller of two rectangles that they share from which their particles are fitted together. Those that
share less take each other's image as known; lower makes larger blocks, which take longer."""


@njit(cache=True, nogil=True)
def _shared(a: IntArray, b: IntArray) -> float:
    """Part of the smaller of two rectangles (4,) that lies in the other."""
    tall = min(a[BOTTOM], b[BOTTOM]) - max(a[TOP], b[TOP])
    wide = min(a[RIGHT], b[RIGHT]) - max(a[LEFT], b[LEFT])
    if tall <= 0 or wide <= 0:
        return 0.0
    least = min((a[BOTTOM] - a[TOP]) * (a[RIGHT] - a[LEFT]), (b[BOTTOM] - b[TOP]) * (b[RIGHT] - b[LEFT]))
    return float(tall * wide / max(least, 1))


@njit(cache=True, nogil=True)
def blocks_of(boxes: IntArray, usable: BoolArray) -> tuple[IntArray, BoolArray]:
    """The block (N,) of each rectangle, those that share most first, at most `LARGEST_BLOCK` in one.

    Also whether it touches a rectangle of another block (N,).
    """
    n = boxes.shape[0]
    left = np.empty(n)
    for i in range(n):
        left[i] = boxes[i, LEFT]
    order = np.argsort(left)  # as numbers of the type that is sorted below: sorting takes long to compile
    first, second, part = [0 for _ in range(0)], [0 for _ in range(0)], [0.0 for _ in range(0)]
    for p in range(n):
        i = order[p]
        for q in range(p + 1, n):
            j = order[q]
            if boxes[j, LEFT] >= boxes[i, RIGHT]:
                break
            share = _shared(boxes[i], boxes[j])
            if share > 0.0 and usable[i] and usable[j]:
                first.append(i)
                second.append(j)
                part.append(share)
    block, size = np.arange(n), np.ones(n, np.int64)
    touches = np.zeros(n, np.bool_)
    for e in np.argsort(-np.array(part)):
        one, other = block[first[e]], block[second[e]]
        if part[e] >= SHARED and one != other and size[one] + size[other] <= LARGEST_BLOCK:
            size[one] += size[other]
            for i in range(n):
                if block[i] == other:
                    block[i] = one
    for e in range(len(first)):
        if block[first[e]] != block[second[e]]:
            touches[first[e]] = touches[second[e]] = True
    return block, touches


@njit(cache=True, nogil=True)
def usable_boxes(theta: FloatArray, usable: BoolArray, shape: tuple[int, int], psf: Psf) -> IntArray:
    """The rectangles (N, 4) of the `usable` particles, with room for their depths to change; zeros for others."""
    boxes = np.zeros((theta.shape[0], BOX), np.int64)
    for i in np.flatnonzero(usable):
        set_box(theta[i], shape, psf, SPARE_UM, boxes[i])
    return boxes
