"""The likelihood of a window of voxels, its slope and its Fisher information, (1) to (4) in `joint_fit`."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.volumes.fit.arguments import (
    PARTICLE,
    A,
    Float32Array,
    FloatArray,
    IntArray,
    Room,
    Stack,
)
from engines.volumes.fit.rendering import VALUE, volume_of

CHUNK = 512
"""Voxels over which products are summed in single precision; such sums are added in double precision."""
LEAST_ELECTRONS = 0.05
"""Photoelectrons of light below which the shot noise does not fall any more: keeps the weight of black voxels
finite. Most voxels that show nothing at a background of 0.05 are black anyway."""
GAUSSIAN = 1e-3
"""Shot noise of a photoelectron over the read variance below which (3) is that of Gaussian noise to rounding."""
BRIGHT_ELECTRONS = 2000.0
"""Photoelectrons from which (3) is added up in double precision: single is then wrong by 0.001."""
MUCH_READ = 30.0
"""Read variance over gain^2 above which the same is needed: (3) is then a small difference of large numbers."""
LEAST_READ = 1e-3
"""Variance, grey values^2, that is always there, so that a volume without noise can be fitted."""


@njit(cache=True, nogil=True)
def fill_light(
    images: Float32Array, theta: FloatArray, ground: float, boxes: IntArray, window: IntArray, room: Room
) -> None:
    """Fill `room.light` with mu of (1) in the window: `room.base`, the `ground`, the particles `theta` (n, 4)."""
    tall, wide = window[3] - window[2], window[5] - window[4]
    size = volume_of(window)
    light, base, plus = room.light[:size], room.base[:size], np.float32(ground)
    for t in range(size):
        light[t] = base[t] + plus
    for k in range(theta.shape[0]):
        b, at, factor = boxes[k], 0, np.float32(theta[k, A])
        width = b[5] - b[4]
        for i in range(b[0] - window[0], b[1] - window[0]):
            for j in range(b[2] - window[2], b[3] - window[2]):
                start = (i * tall + j) * wide + b[4] - window[4]
                row, image = light[start : start + width], images[k, VALUE, at : at + width]
                for t in range(width):
                    row[t] += factor * image[t]
                at += width


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def fill_weights(stack: Stack, size: int, room: Room) -> None:
    """Fill `room.weight` with 1 / variance, 0 where no voxel counts, and `room.residual` with d - mu."""
    gain, read = np.float32(stack.gain), np.float32(stack.read + LEAST_READ)
    least = np.float32(stack.gain * stack.gain * LEAST_ELECTRONS) + read
    light, data, inside = room.light[:size], room.data[:size], room.inside[:size]
    weight, residual = room.weight[:size], room.residual[:size]
    for t in range(size):
        variance = gain * light[t] + read
        variance = least if variance < least else variance
        weight[t] = inside[t] / variance
        residual[t] = data[t] - light[t]


@njit(cache=True, nogil=True)
def take_reference(size: int, room: Room) -> None:
    """Make the base the light that `deviance` compares with."""
    reference, base = room.reference[:size], room.base[:size]
    for t in range(size):
        reference[t] = base[t]


@njit(cache=True, nogil=True)
def deviance(stack: Stack, size: int, bright: bool, room: Room) -> float:
    """Twice the negative log-likelihood (3) of `room.light`, less that of `room.reference`.

    `bright` light needs the logarithm in double precision, which takes five times as long.
    """
    gain, read = stack.gain, stack.read + LEAST_READ
    least = gain * gain * LEAST_ELECTRONS + read
    if gain * np.sqrt(least) < GAUSSIAN * read:
        return _squares(size, room) / read
    if not bright:
        return _fast_deviance(gain, read, least, size, room)
    light, data = room.light[:size], room.data[:size]
    inside, reference = room.inside[:size], room.reference[:size]
    total = 0.0
    for t in range(size):
        if inside[t] > 0.0:
            now, then = max(gain * light[t] + read, least), max(gain * reference[t] + read, least)
            total += now - then - (gain * data[t] + read) * np.log(now / then)
    return 2.0 * total / (gain * gain)


@njit(cache=True, nogil=True)
def _squares(size: int, room: Room) -> float:
    """How much larger the squares of the residual are than those of the reference: Gaussian noise."""
    light, data = room.light[:size], room.data[:size]
    inside, reference = room.inside[:size], room.reference[:size]
    total = 0.0
    for t in range(size):
        if inside[t] > 0.0:
            total += (reference[t] - light[t]) * (2.0 * data[t] - reference[t] - light[t])
    return total


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _fast_deviance(per_light: float, without: float, smallest: float, size: int, room: Room) -> float:
    """`deviance` in single precision, in loops that the compiler makes into vector instructions.

    ln x = e ln 2 + 2 artanh s with x = 2^e m, s = (m - 1) / (m + 1), |s| < 0.18, to 1e-7.
    """
    light, data = room.light[:size], room.data[:size]
    inside, reference = room.inside[:size], room.reference[:size]
    ratio, power = room.spare[:size], room.other_spare[:size]
    gain, read, least = np.float32(per_light), np.float32(without), np.float32(smallest)
    bits = ratio.view(np.int32)
    for t in range(size):
        now, then = gain * light[t] + read, gain * reference[t] + read
        ratio[t] = max(now, least) / max(then, least)
    for t in range(size):
        e = (bits[t] - np.int32(0x3F3504F3)) >> np.int32(23)
        power[t] = np.float32(e)
        bits[t] -= e << np.int32(23)
    total, one, ln2 = 0.0, np.float32(1.0), np.float32(0.6931471805599453)
    c3, c5, c7, c9 = np.float32(2 / 3), np.float32(2 / 5), np.float32(2 / 7), np.float32(2 / 9)
    for start in range(0, size, CHUNK):
        part = np.float32(0.0)
        for t in range(start, min(start + CHUNK, size)):
            s = (ratio[t] - one) / (ratio[t] + one)
            q = s * s
            log = power[t] * ln2 + s * (np.float32(2.0) + q * (c3 + q * (c5 + q * (c7 + q * c9))))
            now, then = gain * light[t] + read, gain * reference[t] + read
            part += inside[t] * (max(now, least) - max(then, least) - (gain * data[t] + read) * log)
        total += float(part)
    return 2.0 * total / (per_light * per_light)


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _pack(box: IntArray, window: IntArray, room: Room) -> None:
    """Fill `room.packed` with weight and weighed residual of a box."""
    tall, wide, width, at = window[3] - window[2], window[5] - window[4], box[5] - box[4], 0
    for i in range(box[0] - window[0], box[1] - window[0]):
        for j in range(box[2] - window[2], box[3] - window[2]):
            start = (i * tall + j) * wide + box[4] - window[4]
            weight, residual = room.weight[start : start + width], room.residual[start : start + width]
            w, r = room.packed[0, at : at + width], room.packed[1, at : at + width]
            for t in range(width):
                w[t] = weight[t]
                r[t] = weight[t] * residual[t]
            at += width


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _own_terms(image: Float32Array, packed: Float32Array, count: int, sums: FloatArray) -> None:
    """Fill `sums` (18,): 10 weighed products of the derivatives with one another, 4 with 1, 4 with the residual."""
    sums[:] = 0.0
    nothing = np.float32(0.0)
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        d0, d1, d2 = image[0, start:stop], image[1, start:stop], image[2, start:stop]
        d3, weight, rest = image[3, start:stop], packed[0, start:stop], packed[1, start:stop]
        zz, zy, zx, za, yy = nothing, nothing, nothing, nothing, nothing
        yx, ya, xx, xa, aa = nothing, nothing, nothing, nothing, nothing
        for t in range(stop - start):
            w, z, y, x, a = weight[t], d0[t], d1[t], d2[t], d3[t]
            wz, wy, wx = w * z, w * y, w * x
            zz += wz * z
            zy += wz * y
            zx += wz * x
            za += wz * a
            yy += wy * y
            yx += wy * x
            ya += wy * a
            xx += wx * x
            xa += wx * a
            aa += w * a * a
        products = (zz, zy, zx, za, yy, yx, ya, xx, xa, aa)
        for k in range(10):
            sums[k] += products[k]
        cz, cy, cx, ca = nothing, nothing, nothing, nothing
        rz, ry, rx, ra = nothing, nothing, nothing, nothing
        for t in range(stop - start):
            w, r, z, y, x, a = weight[t], rest[t], d0[t], d1[t], d2[t], d3[t]
            cz += w * z
            cy += w * y
            cx += w * x
            ca += w * a
            rz += r * z
            ry += r * y
            rx += r * x
            ra += r * a
        others = (cz, cy, cx, ca, rz, ry, rx, ra)
        for k in range(8):
            sums[10 + k] += others[k]


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _cross_terms(
    first: Float32Array,
    a: IntArray,
    second: Float32Array,
    b: IntArray,
    window: IntArray,
    room: Room,
    out: FloatArray,
) -> bool:
    """Fill `out` (4, 4) with weighed products of two particles' derivatives; False where their boxes are apart."""
    z0, z1 = max(a[0], b[0]), min(a[1], b[1])
    y0, y1 = max(a[2], b[2]), min(a[3], b[3])
    x0, x1 = max(a[4], b[4]), min(a[5], b[5])
    out[:] = 0.0
    if z0 >= z1 or y0 >= y1 or x0 >= x1:
        return False
    tall, wide, width, nothing = window[3] - window[2], window[5] - window[4], x1 - x0, np.float32(0.0)
    for k in range(z0, z1):
        for j in range(y0, y1):
            at = ((k - a[0]) * (a[3] - a[2]) + j - a[2]) * (a[5] - a[4]) + x0 - a[4]
            to = ((k - b[0]) * (b[3] - b[2]) + j - b[2]) * (b[5] - b[4]) + x0 - b[4]
            start = ((k - window[0]) * tall + j - window[2]) * wide + x0 - window[4]
            line = room.weight[start : start + width]
            d0, d1 = second[0, to : to + width], second[1, to : to + width]
            d2, d3 = second[2, to : to + width], second[3, to : to + width]
            for p in range(4):
                own = first[p, at : at + width]
                s0, s1, s2, s3 = nothing, nothing, nothing, nothing
                for t in range(width):
                    w = line[t] * own[t]
                    s0 += w * d0[t]
                    s1 += w * d1[t]
                    s2 += w * d2[t]
                    s3 += w * d3[t]
                out[p, 0] += s0
                out[p, 1] += s1
                out[p, 2] += s2
                out[p, 3] += s3
    return True


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _ground_terms(size: int, room: Room) -> tuple[float, float]:
    total, right = 0.0, 0.0
    weight, residual = room.weight[:size], room.residual[:size]
    for t in range(size):
        total += weight[t]
        right += weight[t] * residual[t]
    return total, right


@njit(cache=True, nogil=True)
def fill_equations(
    images: Float32Array,
    theta: FloatArray,
    ground: float,
    boxes: IntArray,
    window: IntArray,
    stack: Stack,
    room: Room,
    matrix: FloatArray,
    right: FloatArray,
) -> None:
    """Fill `matrix` (4n + 1, 4n + 1) with F of (4) and `right` (4n + 1,) with the slope of the log-likelihood.

    Parameters are z, y, x, amplitude of each particle, then the ground. The weights of `fill_weights` are used.
    """
    n = theta.shape[0]
    sums, cross = np.empty(18), np.empty((4, 4))
    matrix[:] = 0.0
    last = PARTICLE * n
    for k in range(n):
        o = PARTICLE * k
        _pack(boxes[k], window, room)
        _own_terms(images[k], room.packed, volume_of(boxes[k]), sums)
        t = 0
        for i in range(PARTICLE):
            first = 1.0 if i == A else theta[k, A]
            for j in range(i, PARTICLE):
                second = 1.0 if j == A else theta[k, A]
                matrix[o + i, o + j] = matrix[o + j, o + i] = sums[t] * first * second
                t += 1
            matrix[o + i, last] = matrix[last, o + i] = sums[10 + i] * first
            right[o + i] = sums[14 + i] * first
        for m in range(k):
            if not _cross_terms(images[k], boxes[k], images[m], boxes[m], window, room, cross):
                continue
            for i in range(PARTICLE):
                first = 1.0 if i == A else theta[k, A]
                for j in range(PARTICLE):
                    value = cross[i, j] * first * (1.0 if j == A else theta[m, A])
                    matrix[o + i, PARTICLE * m + j] = matrix[PARTICLE * m + j, o + i] = value
    total, slope = _ground_terms(volume_of(window), room)
    matrix[last, last] = total + stack.stiffness
    right[last] = slope - stack.stiffness * ground
