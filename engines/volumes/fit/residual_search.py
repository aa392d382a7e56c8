"""What a group's residual shows: a particle that was missed beside the others, or one that may be two."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.volumes.fit.arguments import A, FloatArray, IntArray, KernelPsf, Room, Stack, X, Y, Z
from engines.volumes.fit.rendering import VALUE, render

SEARCH_SIGMAS = 2.5
"""Standard deviations of the PSF to which the filter of the residual reaches: 0.1 % of f^2 is farther out."""
APART_SIGMAS = 1.5
"""Least distance of a place from all particles of the group: nearer, `elongation` sees more."""
LEAST_SEEN = 0.5
"""Part of the greatest information that a place must have: others are at the rim of the window, or in a missing
slice, and lie in the middle of another window if there is anything."""


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _filter(window: IntArray, heights: FloatArray, psf: KernelPsf, squared: bool, room: Room) -> None:
    """Filter `room.weight` (`squared`: with f^2) or its product with the residual (with f) along the three axes.

    The result is in `room.spare`; `room.other_spare` is work space.
    """
    deep, tall, wide = window[1] - window[0], window[3] - window[2], window[5] - window[4]
    size, power = deep * tall * wide, 1.0 if squared else 0.5
    one, two = room.spare[:size], room.other_spare[:size]
    for t in range(size):
        two[t] = room.weight[t] if squared else room.weight[t] * room.residual[t]
    reach = int(SEARCH_SIGMAS * psf.sigma[X])
    for t in range(size):
        one[t] = np.float32(0.0)
    for off in range(-reach, reach + 1):
        factor = np.float32(np.exp(-power * (off / psf.sigma[X]) ** 2))
        low, high = max(0, -off), min(wide, wide - off)
        for r in range(deep * tall):
            row, source = one[r * wide : (r + 1) * wide], two[r * wide : (r + 1) * wide]
            for i in range(low, high):
                row[i] += factor * source[i + off]
    reach = int(SEARCH_SIGMAS * psf.sigma[Y])
    for t in range(size):
        two[t] = np.float32(0.0)
    for off in range(-reach, reach + 1):
        factor = np.float32(np.exp(-power * (off / psf.sigma[Y]) ** 2))
        low, high = max(0, -off), min(tall, tall - off)
        if low >= high:
            continue
        for k in range(deep):
            to, start = two[(k * tall + low) * wide : (k * tall + high) * wide], (k * tall + low + off) * wide
            source = one[start : start + to.size]
            for t in range(to.size):
                to[t] += factor * source[t]
    plane = tall * wide
    for t in range(size):
        one[t] = np.float32(0.0)
    for k in range(deep):
        for m in range(deep):
            off = (heights[window[0] + k] - heights[window[0] + m]) / psf.sigma[Z]
            if abs(off) > SEARCH_SIGMAS:
                continue
            factor = np.float32(np.exp(-power * off * off))
            to, source = one[k * plane : (k + 1) * plane], two[m * plane : (m + 1) * plane]
            for t in range(plane):
                to[t] += factor * source[t]


@njit(cache=True, nogil=True)
def missed(
    theta: FloatArray, window: IntArray, stack: Stack, psf: KernelPsf, room: Room, place: FloatArray
) -> float:
    """Fill `place` (4,) with where the residual looks most like one more particle; return its strength.

    The strength is sum(w r f) / sqrt(sum(w f^2)): the amplitude in standard deviations, if nothing else changed.
    `room.weight` and `room.residual` are those of the particles `theta` (n, 4).
    """
    tall, wide = window[3] - window[2], window[5] - window[4]
    size = (window[1] - window[0]) * tall * wide
    _filter(window, stack.heights, psf, True, room)
    information, greatest = room.light[:size], 0.0
    for t in range(size):
        information[t] = room.spare[t]
        greatest = max(greatest, information[t])
    _filter(window, stack.heights, psf, False, room)
    best, strength = -1, 0.0
    for k in range(window[1] - window[0]):
        for j in range(tall):
            for i in range(wide):
                t = (k * tall + j) * wide + i
                if information[t] < LEAST_SEEN * greatest or room.spare[t] <= strength * np.sqrt(
                    information[t]
                ):
                    continue
                near = False
                for m in range(theta.shape[0]):
                    d2 = ((stack.heights[window[0] + k] - theta[m, Z]) / psf.sigma[Z]) ** 2
                    d2 += ((window[2] + j - theta[m, Y]) / psf.sigma[Y]) ** 2
                    d2 += ((window[4] + i - theta[m, X]) / psf.sigma[X]) ** 2
                    near = near or d2 < APART_SIGMAS**2
                if not near:
                    best, strength = t, room.spare[t] / np.sqrt(information[t])
    if best >= 0:
        place[Z] = stack.heights[window[0] + best // (tall * wide)]
        place[Y] = window[2] + best // wide % tall
        place[X] = window[4] + best % wide
        place[A] = room.spare[best] / information[best]
    return strength


@njit(cache=True, nogil=True)
def elongation(
    theta: FloatArray,
    box: IntArray,
    window: IntArray,
    stack: Stack,
    psf: KernelPsf,
    room: Room,
    half: FloatArray,
) -> float:
    """How much longer than the PSF a particle (4,) is, in standard deviations; fills `half` (3,).

    Where one particle is fitted to two, the residual along their connection u is as the second derivative of the
    PSF, and the direction of the greatest q(u) = sum(w r (u . x)^2 f), x in standard deviations, is theirs. For a
    Gaussian and even weights q has the variance sum(w f^2) / 2, as sum(w r f) = 0 after the fit. Two of half the
    amplitude A at +- `half` (in voxels) have q = A h^2 / 4 sum(w f^2), h in standard deviations.
    """
    render(theta, box, stack.heights, psf, False, room, room.fresh[0])
    image, tall, wide = room.fresh[0, VALUE], window[3] - window[2], window[5] - window[4]
    moments, total, at = np.zeros((3, 3)), 0.0, 0
    for k in range(box[0], box[1]):
        z = (stack.heights[k] - theta[Z]) / psf.sigma[Z]
        for j in range(box[2], box[3]):
            y = (j - theta[Y]) / psf.sigma[Y]
            start = ((k - window[0]) * tall + j - window[2]) * wide - window[4]
            s0, s1, s2 = 0.0, 0.0, 0.0
            for i in range(box[4], box[5]):
                w, f = room.weight[start + i], image[at]
                x, value = (i - theta[X]) / psf.sigma[X], w * f * room.residual[start + i]
                s0 += value
                s1 += value * x
                s2 += value * x * x
                total += w * f * f
                at += 1
            moments[Z, Z] += s0 * z * z
            moments[Z, Y] += s0 * z * y
            moments[Z, X] += s1 * z
            moments[Y, Y] += s0 * y * y
            moments[Y, X] += s1 * y
            moments[X, X] += s2
    if not total > 0.0:
        return 0.0
    moments[Y, Z], moments[X, Z], moments[X, Y] = moments[Z, Y], moments[Z, X], moments[Y, X]
    greatest = _greatest(moments, half)
    h = np.sqrt(max(4.0 * greatest / max(total * abs(theta[A]), 1e-30), 0.0))
    h = min(max(h, 0.5), 1.5)
    for axis in range(3):
        half[axis] *= h * psf.sigma[axis]
    return float(greatest / np.sqrt(0.5 * total))


@njit(cache=True, nogil=True)
def _greatest(matrix: FloatArray, vector: FloatArray) -> float:
    """The greatest eigenvalue of a symmetric matrix (3, 3), by power iteration; fills its `vector` (3,)."""
    shift = 0.0
    for i in range(3):
        for j in range(3):
            shift = max(shift, abs(matrix[i, j]))
    shift *= 3.0  # makes all eigenvalues positive, so that the greatest is also the largest
    start = 0
    for i in range(3):
        if matrix[i, i] > matrix[start, start]:
            start = i
    for i in range(3):
        vector[i] = 1.0 if i == start else 0.3
    value, product = 0.0, np.empty(3)
    for _ in range(30):
        length = 0.0
        for i in range(3):
            product[i] = shift * vector[i]
            for j in range(3):
                product[i] += matrix[i, j] * vector[j]
            length += product[i] ** 2
        length = np.sqrt(length)
        if not length > 0.0:
            return 0.0
        for i in range(3):
            vector[i] = product[i] / length
    for i in range(3):
        for j in range(3):
            value += vector[i] * matrix[i, j] * vector[j]
    return value
