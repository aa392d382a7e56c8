"""How many particles there are where images overlap: the likelihoods of more and of fewer are compared.

A particle may turn out not to be there, one that the detector thought of but did not report may be, and one may be
two. Each such change is fitted to the same pixels with the same weights, and stays if it lowers chi-square by more
than it costs. The brightness counts too: two particles at one place are as bright as two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from engines.refine.alternatives import (
    Image,
    Pixels,
    Rules,
    another_depth,
    boxes_of,
    explains,
    fewer,
    fitted,
    split,
    with_one_more,
)
from engines.refine.block import CONVERGED, weigh_block
from engines.refine.frame import put
from engines.refine.rendering import X, Y, work_space

ROUNDS = 4
NEAR_PX = 12.0
MOST = 6
MARGIN_PX = 4


@njit(cache=True, nogil=True)
def settle(
    frame: Any, others: Any, theta: Any, proposals: Any, noticed: Any, noise: Any, image: Any, rules: Any
) -> Any:
    """The `State` of a block once nothing more can be gained; its `source` is the row of `theta`, -1 where new.

    `theta` (n, 4) are the particles found so far, not in `others` (H, W); `proposals` (p, 4) more places to
    try; `noticed` (n,) says which may be two. `frame` (H, W) is a window around all of these.
    """
    shape = frame.shape
    n, p = theta.shape[0], proposals.shape[0]
    boxes = boxes_of(theta, shape, image)
    region = np.empty((n + p, 4), np.int64)
    region[:n] = boxes
    region[n:] = boxes_of(proposals, shape, image)
    corner, weight = weigh_block(
        others, theta, boxes, region, image.coefficients, image.z, noise, image.space
    )
    full = np.zeros(shape, np.float32)
    full[corner[0] : corner[0] + weight.shape[0], corner[1] : corner[1] + weight.shape[1]] = weight
    pixels = Pixels(frame, others, full)
    now = fitted(pixels, theta, np.arange(n), image, rules)
    untried = np.ones(p, np.bool_)
    for _ in range(ROUNDS):
        before = now.score
        now = fewer(pixels, now, image, rules)
        for q in range(p):
            if untried[q] and now.theta.shape[0] < rules.most:
                more = fitted(
                    pixels, with_one_more(now.theta, proposals[q]), np.append(now.source, -1), image, rules
                )
                if explains(now, more, rules):
                    now = more
                    untried[q] = False
        for k in range(now.theta.shape[0]):
            if now.source[k] >= 0 and noticed[now.source[k]] and now.theta.shape[0] < rules.most:
                two = split(pixels, now, k, image, rules)
                if two.score < now.score:
                    now = two
                    break
        if not now.score < before:
            break
    for k in range(now.theta.shape[0]):
        now = another_depth(pixels, now, k, image, rules)
    return now


@njit(cache=True, nogil=True)
def settle_frame(
    frame: Any,
    total: Any,
    theta: Any,
    count: int,
    proposals: Any,
    noticed: Any,
    faint: Any,
    usable: Any,
    usual: float,
    worst: float,
    brightness: float,
    spread: float,
    coefficients: Any,
    z: Any,
    extent: Any,
    noise: Any,
    covariance: Any,
    fit: Any,
    state: Any,
    changed: Any,
) -> int:
    """Settle the numbers around all particles that are `noticed`, `faint`, or near a proposal, in place.

    The first `count` rows of `theta` (N, 4) and the others are in use, the rest is room for new ones; returns
    how many are in use then. What is not there loses its `usable`; `changed` (N,) marks what was settled.
    `total` (H, W) stays the image of all particles.
    """
    size = coefficients.shape[1]
    space, drawn = work_space(coefficients), np.empty((4, size, size), np.float32)
    image = Image(coefficients, z, extent, space, drawn)
    rules = Rules(usual, worst, brightness, spread, MOST)
    n, p = count, proposals.shape[0]
    open_proposals = np.ones(p, np.bool_)
    half = size // 2 + MARGIN_PX
    for i in range(n):
        if not usable[i] or changed[i]:
            continue
        apart = np.maximum(np.abs(theta[:n, X] - theta[i, X]), np.abs(theta[:n, Y] - theta[i, Y]))
        apart[i] = -1.0
        near = np.flatnonzero((apart < NEAR_PX) & usable[:n])
        near = near[np.argsort(apart[near])][: MOST - 1]
        far = np.maximum(np.abs(proposals[:, X] - theta[i, X]), np.abs(proposals[:, Y] - theta[i, Y]))
        thought = np.flatnonzero((far < NEAR_PX) & open_proposals)[:MOST]
        if not (noticed[i] or thought.size or (faint[i] and near.size > 1)):
            continue
        places = np.concatenate((theta[near, :2], proposals[thought, :2]))
        top, bottom = (
            max(int(places[:, Y].min()) - half, 0),
            min(int(places[:, Y].max()) + half, frame.shape[0]),
        )
        left, right = (
            max(int(places[:, X].min()) - half, 0),
            min(int(places[:, X].max()) + half, frame.shape[1]),
        )
        corner = np.array([float(left), float(top), 0.0, 0.0])
        for k in near:
            put(total, theta[k], -1.0, coefficients, z, extent, space, drawn)
        found = settle(
            frame[top:bottom, left:right].copy(),
            total[top:bottom, left:right].copy(),
            theta[near] - corner,
            proposals[thought] - corner,
            noticed[near],
            noise,
            image,
            rules,
        )
        if np.isfinite(found.score):
            open_proposals[thought] = False
            usable[near] = False
            for m in range(found.theta.shape[0]):
                if found.source[m] < 0 and n == theta.shape[0]:
                    continue
                row = int(near[found.source[m]]) if found.source[m] >= 0 else n
                n += row == n
                theta[row] = found.theta[m] + corner
                covariance[row], fit[row], state[row] = found.covariance[m], found.fit[m], CONVERGED
                usable[row] = True
                changed[row] = True
                put(total, theta[row], 1.0, coefficients, z, extent, space, drawn)
        else:
            for k in near:
                put(total, theta[k], 1.0, coefficients, z, extent, space, drawn)
        changed[near] = True
    return n
