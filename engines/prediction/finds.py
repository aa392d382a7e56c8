"""What a network has found where something was left over: what is new of it, and its fit beside what is known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from engines.prediction.correction import Corrected
from engines.refine.arguments import BoolArray, FloatArray, IntArray, Psf
from engines.refine.fitting import on_another
from engines.refine.grouping import SHARED, blocks_of, usable_boxes
from engines.refine.partial import reached
from engines.refine.particle_count import NEAR_PX
from engines.refine.rendering import BOTTOM, LEFT, RIGHT, TOP, A, X, Y, Z

SAME_PX, SAME_UM = 2.5, 60.0
"""px within which a find may be of a known particle, and um of depth that count as much as these px in choosing
between two. The network is good to 0.3 px and 3 um but for overlapped ones, where it takes depths for others."""
FIND_SIGMAS = 3.0
"""Standard errors of a find's depth within which it confirms a fit: as far as the search around a find goes."""
WEAK_SIGMAS, WEAK_SPREADS = 10.0, 3.0
"""Standard errors of the brightness, or relative scatters below the typical one, of a particle that has to be seen
by the network where it looks, or is none."""
EDGE_PX = 8.0
"""px from the edge of the frame within which the network always looks: of a particle there so little may be seen
that a fit takes another one for it, of which the rim reaches in from outside, and would do so in frame after
frame. Only a weak one needs to be seen by it: it overlooks many there (215 of 228 such were particles)."""


class Group(NamedTuple):
    """What is fitted together, from the places `start` (K, 3) with `sigma_z_um` (K,).

    The first `new` are finds, the others the known particles `known` (K - new,), of which those that are `drawn`
    (K,) keep their fit.
    """

    start: FloatArray
    sigma_z_um: FloatArray
    new: int
    known: IntArray
    drawn: BoolArray


def owners(place: FloatArray, known: FloatArray, other_um: FloatArray) -> IntArray:
    """The particle (K,) that each of the finds at `place` (K, 3: px, px, um) is of, -1 where it is new.

    `known` (N, 3) are the places of particles, `other_um` (N,) their second depths, NaN where there is none. Each
    particle owns one find at most, the nearest first.
    """
    owner = np.full(len(place), -1)
    if not len(place) or not len(known):
        return owner
    near = cKDTree(known[:, :2]).sparse_distance_matrix(cKDTree(place[:, :2]), SAME_PX, output_type="ndarray")
    particle, find = near["i"], near["j"]
    apart_px = np.hypot(*(place[find, :2] - known[particle, :2]).T)
    deep = np.abs(place[find, Z] - known[particle, Z])
    deep = np.fmin(deep, np.abs(place[find, Z] - other_um[particle]))
    distance = np.hypot(apart_px / SAME_PX, deep / SAME_UM)
    taken = np.zeros(len(known), np.bool_)
    for k in np.lexsort((particle, find, distance)):
        if owner[find[k]] < 0 and not taken[particle[k]]:
            owner[find[k]] = particle[k]
            taken[particle[k]] = True
    return owner


def confirmed(
    corrected: Corrected, place: FloatArray, sigma_z_um: FloatArray, shape: tuple[int, int], psf: Psf
) -> Corrected:
    """Also believe particles that are elsewhere than expected, where a find is: the picture has moved as a whole.

    `place` (K, 3: px, px, um) are those of the finds, with `sigma_z_um` (K,), of a frame of `shape` (H, W) that was
    read as a whole. Those that overlap with one that is not believed are left to the search.
    """
    theta, other_um = corrected.particles.theta, corrected.other[:, 0]
    rows = np.flatnonzero(corrected.believed | corrected.elsewhere)
    owner = owners(place, theta[rows, :3], other_um[rows])
    find = np.flatnonzero(owner >= 0)
    mine = rows[owner[find]]
    apart = np.abs(place[find, Z] - theta[mine, Z])
    apart = np.fmin(apart, np.abs(place[find, Z] - other_um[mine]))
    with np.errstate(invalid="ignore"):
        mine = mine[apart <= FIND_SIGMAS * sigma_z_um[find]]
    believed = corrected.believed.copy()
    believed[mine] = True
    usable = corrected.particles.usable
    block, _ = blocks_of(usable_boxes(theta, usable, shape, psf), usable)
    doubtful = np.zeros(len(theta) + 1, np.bool_)
    doubtful[block[usable & ~believed]] = True
    believed &= corrected.believed | ~doubtful[block]
    lost = on_another(theta, believed) & ~corrected.believed
    return corrected._replace(believed=believed & ~lost)


def at_edge(place: FloatArray, shape: tuple[int, ...]) -> BoolArray:
    """Which places (N, 2 or more: x px, y px) lie within `EDGE_PX` of the edge of an image of `shape` (H, W)."""
    x, y = place[:, X], place[:, Y]
    near: BoolArray = np.minimum.reduce([x, y, shape[1] - 1 - x, shape[0] - 1 - y]) < EDGE_PX
    return near


def unseen(corrected: Corrected, seen: BoolArray, looked: BoolArray) -> BoolArray:
    """Which believed particles (N,) are none: the network `looked` at their place, has not `seen` them, and they
    are weak."""
    a, error, typical = corrected.particles.theta[:, A], corrected.sigma[:, A], corrected.typical
    with np.errstate(invalid="ignore"):
        weak = (a < WEAK_SIGMAS * error) | (a < typical.brightness - WEAK_SPREADS * typical.spread)
    found: BoolArray = corrected.believed & looked & ~seen & weak
    return found


def group_of(
    place: FloatArray,
    sigma_z_um: FloatArray,
    corrected: Corrected,
    shape: tuple[int, int],
    psf: Psf,
) -> Group:
    """The new finds at `place` (M, 3) with `sigma_z_um` (M,), and the believed particles around them."""
    m, rows = len(place), np.flatnonzero(corrected.believed)
    theta, sigma = corrected.particles.theta[rows], corrected.sigma[rows]
    start = np.vstack([place, theta[:, :3]])
    usable = np.asarray(np.isfinite(start).all(axis=1), np.bool_)
    boxes = usable_boxes(np.column_stack([start, np.ones(len(start))]), usable, shape, psf)
    free = np.arange(len(start)) < m
    for i in range(m):
        apart = np.maximum(np.abs(start[:, X] - place[i, X]), np.abs(start[:, Y] - place[i, Y]))
        free |= apart < NEAR_PX
        free |= _share(boxes, boxes[i]) >= SHARED
    kept = np.flatnonzero(free | reached(boxes, free))
    return Group(
        start[kept],
        np.append(sigma_z_um, sigma[:, Z])[kept],
        m,
        rows[kept[m:] - m],
        ~free[kept],
    )


def _share(boxes: IntArray, box: IntArray) -> FloatArray:
    """Part (N,) of the smaller of two rectangles that they share, of `boxes` (N, 4) and one `box`."""
    tall = np.minimum(boxes[:, BOTTOM], box[BOTTOM]) - np.maximum(boxes[:, TOP], box[TOP])
    wide = np.minimum(boxes[:, RIGHT], box[RIGHT]) - np.maximum(boxes[:, LEFT], box[LEFT])
    area = (boxes[:, BOTTOM] - boxes[:, TOP]) * (boxes[:, RIGHT] - boxes[:, LEFT])
    least = np.minimum(area, (box[BOTTOM] - box[TOP]) * (box[RIGHT] - box[LEFT]))
    found: FloatArray = np.maximum(tall, 0) * np.maximum(wide, 0) / np.maximum(least, 1)
    return found
