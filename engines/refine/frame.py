"""All particles of a frame: a coarse search in depth, then overlapping ones fitted in joint blocks, in sweeps.

What lies outside a block is taken at its last estimate, so blocks that touch are fitted a second time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from engines.refine.block import SINGULAR, fit_block, weigh_block
from engines.refine.rendering import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    A,
    X,
    Y,
    Z,
    add,
    best_brightness,
    draw,
    set_box,
    work_space,
)

LARGEST_BLOCK = 6
SPARE_UM = 12.0
ITERATIONS = 16
SWEEPS = 2
# Another depth is tried too where it explains this part of what the best one does.
RIVAL = 0.6
RIVAL_ITERATIONS = 5
LARGEST_MOVE_PX = 3.0
# Part of the smaller rectangle that two share from which they are fitted in one block.
SHARED = 0.1
UNTRIED = 10


@njit(cache=True, nogil=True)
def _shared(a: Any, b: Any) -> Any:
    tall = min(a[BOTTOM], b[BOTTOM]) - max(a[TOP], b[TOP])
    wide = min(a[RIGHT], b[RIGHT]) - max(a[LEFT], b[LEFT])
    if tall <= 0 or wide <= 0:
        return 0.0
    least = min((a[BOTTOM] - a[TOP]) * (a[RIGHT] - a[LEFT]), (b[BOTTOM] - b[TOP]) * (b[RIGHT] - b[LEFT]))
    return tall * wide / max(least, 1)


@njit(cache=True, nogil=True)
def blocks_of(boxes: Any, usable: Any) -> tuple[Any, Any]:
    """The block (N,) of each rectangle, those that share most first, at most `LARGEST_BLOCK` in one.

    Also whether it touches a rectangle of another block (N,).
    """
    n = boxes.shape[0]
    order = np.argsort(boxes[:, LEFT])
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
def _explained(
    frame: Any,
    total: Any,
    theta: Any,
    box: Any,
    coefficients: Any,
    z: Any,
    extent: Any,
    space: Any,
    image: Any,
) -> Any:
    """Set the brightness of `theta` (4,) to what fits best; returns how much of the sum of squares it explains."""
    set_box(theta, frame.shape, coefficients, z, extent, 0.0, box)
    draw(theta, box, coefficients, z, False, space, image)
    theta[A], gain = best_brightness(frame, total, box, image)
    return gain


@njit(cache=True, nogil=True)
def search_depth(
    frame: Any,
    total: Any,
    theta: Any,
    box: Any,
    coefficients: Any,
    z: Any,
    extent: Any,
    noise: Any,
    span_um: float,
    step_um: float,
    space: Any,
    image: Any,
) -> None:
    """Move `theta` (4,) to the depth within `span_um` that explains most.

    Images before and behind a focal line are alike: where another depth explains nearly as much, the particle
    is fitted from both, alone, and the better fit stays. `frame` less `total` holds the particle.
    """
    steps = int(span_um / step_um)
    gains = np.zeros(2 * steps + 1)
    trial = theta.copy()
    for k in range(2 * steps + 1):
        trial[:] = theta
        trial[Z] += (k - steps) * step_um
        if k == steps or z[2] <= trial[Z] <= z[3]:
            gains[k] = _explained(frame, total, trial, box, coefficients, z, extent, space, image)
    best = int(np.argmax(gains))
    rival = -1
    for k in range(gains.size):
        peak = (k == 0 or gains[k] >= gains[k - 1]) and (k == gains.size - 1 or gains[k] >= gains[k + 1])
        near = abs(k - best) <= 1 or gains[k] <= RIVAL * gains[best]
        if peak and not near and (rival < 0 or gains[k] > gains[rival]):
            rival = k
    here = theta.copy()
    theta[Z] = here[Z] + (best - steps) * step_um
    _explained(frame, total, theta, box, coefficients, z, extent, space, image)
    if rival < 0:
        return
    boxes, covariance, fit = np.empty((2, 4), np.int64), np.empty((1, 4, 4)), np.empty((1, 2))
    pair = np.empty((2, 4))
    for c in range(2):
        k = best if c == 0 else rival
        pair[c] = here
        pair[c, Z] += (k - steps) * step_um
        _explained(frame, total, pair[c], boxes[c], coefficients, z, extent, space, image)
        set_box(pair[c], frame.shape, coefficients, z, extent, SPARE_UM, boxes[c])
    for side in (TOP, LEFT):
        boxes[:, side] = boxes[:, side].min()
    for side in (BOTTOM, RIGHT):
        boxes[:, side] = boxes[:, side].max()
    most = 0.0
    for c in range(2):
        one = pair[c : c + 1]
        corner, weight = weigh_block(total, one, boxes[:1], boxes[:1], coefficients, z, noise, space)
        fit_block(
            frame,
            total,
            one,
            boxes[:1],
            corner,
            weight,
            np.zeros(2),
            coefficients,
            z,
            space,
            np.int64(RIVAL_ITERATIONS),
            covariance,
            fit,
        )
        if max(abs(one[0, X] - here[X]), abs(one[0, Y] - here[Y])) > LARGEST_MOVE_PX:
            continue
        draw(one[0], boxes[0], coefficients, z, False, space, image)
        _, gain = best_brightness(frame, total, boxes[0], image)
        if gain > most:
            most = gain
            theta[:] = one[0]


@njit(cache=True, nogil=True)
def begin_frame(
    frame: Any,
    total: Any,
    theta: Any,
    span_um: Any,
    step_um: float,
    coefficients: Any,
    z: Any,
    extent: Any,
    noise: Any,
    usable: Any,
) -> None:
    """Give the particles `theta` (N, 4: x px, y px, z um, brightness) their brightness and depth, one by one.

    `frame` (H, W) is the contrast; `total` (H, W) comes empty and becomes the image of all particles.
    `span_um` (N,) is how far from the start in depth to search; particles not `usable` (N,) are left alone.
    """
    n = theta.shape[0]
    space = work_space(coefficients)
    size = coefficients.shape[1]
    image = np.empty((4, size, size), np.float32)
    box = np.zeros(4, np.int64)
    for i in range(n):
        if usable[i]:
            _explained(frame, total, theta[i], box, coefficients, z, extent, space, image)
    order = np.argsort(-theta[:, A])
    for k in range(n):
        i = order[k]
        if usable[i]:
            _explained(frame, total, theta[i], box, coefficients, z, extent, space, image)
            put(total, theta[i], 1.0, coefficients, z, extent, space, image)
    for i in range(n):
        if usable[i] and span_um[i] > 0:
            put(total, theta[i], -1.0, coefficients, z, extent, space, image)
            search_depth(
                frame,
                total,
                theta[i],
                box,
                coefficients,
                z,
                extent,
                noise,
                span_um[i],
                step_um,
                space,
                image,
            )
            put(total, theta[i], 1.0, coefficients, z, extent, space, image)


@njit(cache=True, nogil=True)
def put(
    total: Any, theta: Any, factor: float, coefficients: Any, z: Any, extent: Any, space: Any, image: Any
) -> None:
    """Add `factor` times the image of a particle (4,), in its rectangle, to `total` (H, W)."""
    box = np.empty(4, np.int64)
    set_box(theta, total.shape, coefficients, z, extent, SPARE_UM, box)
    draw(theta, box, coefficients, z, False, space, image)
    add(total, theta, box, image, factor)


@njit(cache=True, nogil=True)
def take_back(total: Any, theta: Any, start: Any, usable: Any, coefficients: Any, z: Any, extent: Any) -> Any:
    """Put those of `theta` (N, 4) that left their `start` (N, 4) back there; returns which (N,)."""
    space = work_space(coefficients)
    size = coefficients.shape[1]
    image = np.empty((4, size, size), np.float32)
    left = np.zeros(theta.shape[0], np.bool_)
    for i in range(start.shape[0]):
        far = max(abs(theta[i, X] - start[i, X]), abs(theta[i, Y] - start[i, Y])) > LARGEST_MOVE_PX
        if usable[i] and far:
            put(total, theta[i], -1.0, coefficients, z, extent, space, image)
            theta[i] = start[i]
            put(total, theta[i], 1.0, coefficients, z, extent, space, image)
            left[i] = True
    return left


@njit(cache=True, nogil=True)
def boxes_of(theta: Any, which: Any, shape: Any, coefficients: Any, z: Any, extent: Any) -> Any:
    """The rectangles (N, 4) of `which` of the particles, with room for their depth to change; else zeros."""
    boxes = np.zeros((theta.shape[0], 4), np.int64)
    for i in which:
        set_box(theta[i], shape, coefficients, z, extent, SPARE_UM, boxes[i])
    return boxes


@njit(cache=True, nogil=True)
def fit_frame(
    frame: Any,
    total: Any,
    theta: Any,
    coefficients: Any,
    z: Any,
    extent: Any,
    noise: Any,
    prior: Any,
    usable: Any,
    wanted: Any,
    covariance: Any,
    fit: Any,
    state: Any,
) -> None:
    """Fit the blocks that hold any of the `wanted` (N,) of the particles `theta` (N, 4), in place.

    `total` (H, W) is the image of all of them and stays so. `prior` is that of `fit_block`, for blocks of
    more than one. `covariance` (N, 4, 4), `fit` (N, 2) and `state` (N,) are filled as by `fit_block`.
    """
    n = theta.shape[0]
    space = work_space(coefficients)
    size = coefficients.shape[1]
    image = np.empty((4, size, size), np.float32)
    boxes = boxes_of(theta, np.flatnonzero(usable), frame.shape, coefficients, z, extent)
    block, touches = blocks_of(boxes, usable)
    nothing = np.zeros(2)
    for sweep in range(SWEEPS):
        for b in range(n):
            members = np.flatnonzero((block == b) & usable)
            if members.size == 0 or (sweep > 0 and not touches[members].any()):
                continue
            if not wanted[members].any():
                continue
            for k in range(members.size):
                i = members[k]
                put(total, theta[i], -1.0, coefficients, z, extent, space, image)
                set_box(theta[i], frame.shape, coefficients, z, extent, SPARE_UM, boxes[i])
            some, errors, good = theta[members], covariance[members], fit[members]
            around = boxes[members]
            corner, weight = weigh_block(total, some, around, around, coefficients, z, noise, space)
            ended, _ = fit_block(
                frame,
                total,
                some,
                around,
                corner,
                weight,
                prior if members.size > 1 else nothing,
                coefficients,
                z,
                space,
                np.int64(ITERATIONS),
                errors,
                good,
            )
            for k in range(members.size):
                i = members[k]
                inside = (
                    boxes[i, LEFT] - 0.5 <= some[k, X] <= boxes[i, RIGHT] - 0.5
                    and boxes[i, TOP] - 0.5 <= some[k, Y] <= boxes[i, BOTTOM] - 0.5
                )
                state[i] = ended
                if ended == SINGULAR and members.size > 1:  # each by itself in the next sweep
                    block[i], touches[i] = i, True
                if inside:
                    theta[i], covariance[i], fit[i] = some[k], errors[k], good[k]
                put(total, theta[i], 1.0, coefficients, z, extent, space, image)
