"""Which particles of a volume overlap so much that they are fitted together."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.volumes.fit.arguments import BoolArray, FloatArray, IntArray, KernelPsf, X, Y, Z

LARGEST_GROUP = 8
"""Particles fitted together at most; the time of a step grows with the square. Larger clusters are cut where least
is shared, and their groups are fitted again with the others' new images."""
TOGETHER_SIGMAS = 4.0
"""Distance, in standard deviations of the PSF along each axis, within which particles are fitted together: at 4 the
images' correlation exp(-d^2 / 4) is 0.02. Larger makes groups that take longer."""
TOUCH_SIGMAS = 6.0
"""Distance within which particles see each other's light: twice `psf.REACH_SIGMAS`."""


@njit(cache=True, nogil=True)
def groups_of(theta: FloatArray, usable: BoolArray, psf: KernelPsf) -> tuple[IntArray, BoolArray]:
    """The group (N,) of each particle `theta` (N, 4), the closest together first, at most `LARGEST_GROUP` in one.

    Also whether it is touched by the light of another group (N,).
    """
    n = theta.shape[0]
    column = np.empty(n)
    for i in range(n):
        column[i] = theta[i, X] / psf.sigma[X]
    order = np.argsort(column)
    first, second, apart = [0 for _ in range(0)], [0 for _ in range(0)], [0.0 for _ in range(0)]
    touches = np.zeros(n, np.bool_)
    link_i, link_j = [0 for _ in range(0)], [0 for _ in range(0)]
    for p in range(n):
        i = order[p]
        if not usable[i]:
            continue
        for q in range(p + 1, n):
            j = order[q]
            off = column[j] - column[i]
            if off > TOUCH_SIGMAS:
                break
            if not usable[j]:
                continue
            d2 = off * off
            for axis in (Z, Y):
                d2 += ((theta[i, axis] - theta[j, axis]) / psf.sigma[axis]) ** 2
            if d2 < TOGETHER_SIGMAS**2:
                first.append(i)
                second.append(j)
                apart.append(d2)
            if d2 < TOUCH_SIGMAS**2:
                link_i.append(i)
                link_j.append(j)
    group, size = np.arange(n), np.ones(n, np.int64)
    if len(apart) > 0:
        for e in np.argsort(np.array(apart)):  # float64 as above: sorting takes long to compile
            one, other = group[first[e]], group[second[e]]
            if one != other and size[one] + size[other] <= LARGEST_GROUP:
                size[one] += size[other]
                for i in range(n):
                    if group[i] == other:
                        group[i] = one
    for e in range(len(link_i)):
        if group[link_i[e]] != group[link_j[e]]:
            touches[link_i[e]] = touches[link_j[e]] = True
    return group, touches
