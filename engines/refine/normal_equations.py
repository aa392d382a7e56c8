"""The normal equations of a block, (4) in `block`: overlapping particles on a plane of background."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from engines.refine.arguments import Float32Array, FloatArray, IntArray, Pixels, Prior, Psf
from engines.refine.rendering import BOTTOM, BOX, LEFT, RIGHT, TOP, A, Z, add
from engines.refine.spline import BY_X, BY_Y, BY_Z, VALUE, pitch_of

GROUND = 3
"""Parameters of the plane of background."""
LEAST_PIVOT = 1e-11
"""Part of a diagonal element below which what is left of it in Cholesky's decomposition counts as 0: 10^4 to 10^5
rounding errors of double precision. Parameters that only rounding tells apart make the matrix singular."""
CHUNK = 512
"""Pixels over which products are summed in single precision; such sums are added in double precision."""


class Block(NamedTuple):
    """What stays the same in all steps of a block's fit.

    `data` and `weight` (H', W') begin at row `corner[0]`, column `corner[1]` of the frame. `packed` (n, 3, S) are
    the weights w of each particle's rectangle, in rows as `spline.evaluate_planes` has them, then w u and w v, with
    u, v the columns and rows from the middle of the block, over half its longer side; 0 between the rows. `ground`
    (3, 3) is the plane's part of the normal equations. `space` (S) is work space.
    """

    data: Float32Array
    weight: Float32Array
    corner: IntArray
    packed: Float32Array
    ground: FloatArray
    space: Float32Array


@njit(cache=True, nogil=True)
def solve(matrix: FloatArray, right: FloatArray, damping: float, step: FloatArray, lower: FloatArray) -> bool:
    """Solve (F + lambda diag F) delta = `right`, (4), by Cholesky's decomposition; False where F is singular.

    `matrix` (P, P) is F, `damping` lambda; fills `step` (P,) with delta and `lower` (P, P) with the decomposition.
    """
    n = right.size
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j] * (1.0 + damping if i == j else 1.0)
            for k in range(j):
                total -= lower[i, k] * lower[j, k]
            if i == j:
                if not total > LEAST_PIVOT * matrix[i, i]:
                    return False
                lower[i, i] = np.sqrt(total)
            else:
                lower[i, j] = total / lower[j, j]
    substitute(lower, right, step)
    return True


@njit(cache=True, nogil=True)
def substitute(lower: FloatArray, right: FloatArray, step: FloatArray) -> None:
    """Fill `step` (P,) with the solution for another `right` (P,), with the decomposition of `solve`."""
    n = right.size
    for i in range(n):
        total = right[i]
        for k in range(i):
            total -= lower[i, k] * step[k]
        step[i] = total / lower[i, i]
    for i in range(n - 1, -1, -1):
        total = step[i]
        for k in range(i + 1, n):
            total -= lower[k, i] * step[k]
        step[i] = total / lower[i, i]


@njit(cache=True, nogil=True)
def block_of(pixels: Pixels, boxes: IntArray) -> Block:
    """The `Block` of the rectangles `boxes` (n, `BOX`), all of which lie in the weights of `pixels`."""
    frame, others, weight, corner = pixels
    tall, wide = weight.shape
    data = np.empty((tall, wide), np.float32)
    for i in range(tall):
        row = corner[0] + i
        line = data[i]
        seen, other = frame[row, corner[1] : corner[1] + wide], others[row, corner[1] : corner[1] + wide]
        for j in range(wide):
            line[j] = seen[j] - other[j]
    most = 0
    for k in range(boxes.shape[0]):
        b = boxes[k]
        most = max(most, (b[BOTTOM] - b[TOP]) * pitch_of(b[RIGHT] - b[LEFT]))
    packed = np.zeros((boxes.shape[0], 3, most), np.float32)
    scale = 2.0 / max(tall, wide)
    step = np.float32(scale)
    for k in range(boxes.shape[0]):
        b = boxes[k]
        top, left, width = b[TOP] - corner[0], b[LEFT] - corner[1], b[RIGHT] - b[LEFT]
        pitch = pitch_of(width)
        first = np.float32(scale * (left - 0.5 * (wide - 1)))
        for i in range(b[BOTTOM] - b[TOP]):
            v = np.float32(scale * (top + i - 0.5 * (tall - 1)))
            line, at = weight[top + i, left : left + width], i * pitch
            w0, w1 = packed[k, 0, at : at + width], packed[k, 1, at : at + width]
            w2 = packed[k, 2, at : at + width]
            for j in range(width):
                w0[j] = line[j]
            for j in range(width):
                w1[j] = line[j] * (first + step * np.float32(j))
            for j in range(width):
                w2[j] = line[j] * v
    block = Block(data, weight, corner, packed, np.zeros((GROUND, GROUND)), np.zeros(most, np.float32))
    _fill_ground(block)
    return block


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _fill_ground(block: Block) -> None:
    weight, out = block.weight, block.ground
    scale, middle = 2.0 / max(weight.shape[0], weight.shape[1]), 0.5 * (weight.shape[1] - 1)
    step, first, nothing = np.float32(scale), np.float32(-scale * middle), np.float32(0.0)
    for i in range(weight.shape[0]):
        w0, w1, w2, line = nothing, nothing, nothing, weight[i]
        for j in range(weight.shape[1]):
            w, u = line[j], first + step * np.float32(j)
            w0 += w
            w1 += w * u
            w2 += w * u * u
        v = scale * (i - 0.5 * (weight.shape[0] - 1))
        out[0, 0] += w0
        out[0, 1] += w1
        out[0, 2] += w0 * v
        out[1, 1] += w2
        out[1, 2] += w1 * v
        out[2, 2] += w0 * v * v
    out[1, 0], out[2, 0], out[2, 1] = out[0, 1], out[0, 2], out[1, 2]


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _own_terms(image: Float32Array, packed: Float32Array, count: int, sums: FloatArray) -> None:
    """Fill `sums` (22,): weighed products of one particle's derivatives by x, y, z and brightness, in that order.

    First the 10 of the derivatives with one another, then 12 with the parts of the plane, 1, u and v. `image` (4,
    S), `packed` (3, S), of which the first `count` pixels count.
    """
    sums[:] = 0.0
    nothing = np.float32(0.0)
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        value, by_x = image[VALUE, start:stop], image[BY_X, start:stop]
        by_y, by_z = image[BY_Y, start:stop], image[BY_Z, start:stop]
        weight, across, down = packed[0, start:stop], packed[1, start:stop], packed[2, start:stop]
        xx, xy, xz, xv, yy = nothing, nothing, nothing, nothing, nothing
        yz, yv, zz, zv, vv = nothing, nothing, nothing, nothing, nothing
        for t in range(stop - start):
            w, x, y, z, v = weight[t], by_x[t], by_y[t], by_z[t], value[t]
            wx, wy, wz = w * x, w * y, w * z
            xx += wx * x
            xy += wx * y
            xz += wx * z
            xv += wx * v
            yy += wy * y
            yz += wy * z
            yv += wy * v
            zz += wz * z
            zv += wz * v
            vv += w * v * v
        terms = (xx, xy, xz, xv, yy, yz, yv, zz, zv, vv)
        for k in range(10):
            sums[k] += terms[k]
        cx, cy, cz, cv, ux, uy = nothing, nothing, nothing, nothing, nothing, nothing
        uz, uv, vx, vy, vz, v2 = nothing, nothing, nothing, nothing, nothing, nothing
        for t in range(stop - start):
            w, a, d, x, y, z, v = weight[t], across[t], down[t], by_x[t], by_y[t], by_z[t], value[t]
            cx += w * x
            cy += w * y
            cz += w * z
            cv += w * v
            ux += a * x
            uy += a * y
            uz += a * z
            uv += a * v
            vx += d * x
            vy += d * y
            vz += d * z
            v2 += d * v
        plane = (cx, cy, cz, cv, ux, uy, uz, uv, vx, vy, vz, v2)
        for k in range(12):
            sums[10 + k] += plane[k]


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _own_right(image: Float32Array, weighed: Float32Array, count: int, sums: FloatArray) -> None:
    """Fill `sums` (4,): products of the derivatives by x, y, z and brightness with the `weighed` residual (S)."""
    sums[:] = 0.0
    nothing = np.float32(0.0)
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        value, by_x = image[VALUE, start:stop], image[BY_X, start:stop]
        by_y, by_z, r = image[BY_Y, start:stop], image[BY_Z, start:stop], weighed[start:stop]
        rx, ry, rz, rv = nothing, nothing, nothing, nothing
        for t in range(stop - start):
            rx += r[t] * by_x[t]
            ry += r[t] * by_y[t]
            rz += r[t] * by_z[t]
            rv += r[t] * value[t]
        terms = (rx, ry, rz, rv)
        for k in range(4):
            sums[k] += terms[k]


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _cross_terms(
    first: Float32Array, a: IntArray, second: Float32Array, b: IntArray, block: Block, out: FloatArray
) -> None:
    """Fill `out` (4, 4), in the order value, x, y, z: weighed products of two particles' derivatives.

    `first`, `second` (4, S) are their images in the rectangles `a` and `b`.
    """
    out[:] = 0.0
    top, bottom = max(a[TOP], b[TOP]), min(a[BOTTOM], b[BOTTOM])
    left, right = max(a[LEFT], b[LEFT]), min(a[RIGHT], b[RIGHT])
    width, nothing = right - left, np.float32(0.0)
    here, there = pitch_of(a[RIGHT] - a[LEFT]), pitch_of(b[RIGHT] - b[LEFT])
    for i in range(top, bottom):
        at, to = (i - a[TOP]) * here + left - a[LEFT], (i - b[TOP]) * there + left - b[LEFT]
        weight, column = block.weight[i - block.corner[0]], left - block.corner[1]
        line = weight[column : column + width]
        v, x = second[VALUE, to : to + width], second[BY_X, to : to + width]
        y, z = second[BY_Y, to : to + width], second[BY_Z, to : to + width]
        for p in range(4):
            s0, s1, s2, s3, own = nothing, nothing, nothing, nothing, first[p, at : at + width]
            for j in range(width):
                w = line[j] * own[j]
                s0 += w * v[j]
                s1 += w * x[j]
                s2 += w * y[j]
                s3 += w * z[j]
            out[p, 0] += s0
            out[p, 1] += s1
            out[p, 2] += s2
            out[p, 3] += s3


@njit(cache=True, nogil=True)
def fill_matrix(
    images: Float32Array, theta: FloatArray, boxes: IntArray, block: Block, matrix: FloatArray
) -> None:
    """Fill `matrix` (4n + 3, 4n + 3) with J^T W J of (4): x, y, z, brightness of each particle, and the plane.

    `images` (n, 4, S) are values and derivatives of the particles `theta` (n, 4) in their rectangles `boxes` (n,
    `BOX`), of `rendering.render`.
    """
    n = theta.shape[0]
    sums, cross = np.empty(22), np.empty((4, 4))
    matrix[:] = 0.0
    for k in range(n):
        b, o = boxes[k], 4 * k
        _own_terms(images[k], block.packed[k], (b[BOTTOM] - b[TOP]) * pitch_of(b[RIGHT] - b[LEFT]), sums)
        t = 0
        for i in range(4):
            first = 1.0 if i == A else theta[k, A]
            for j in range(i, 4):
                second = 1.0 if j == A else theta[k, A]
                matrix[o + i, o + j] = matrix[o + j, o + i] = sums[t] * first * second
                t += 1
            for g in range(GROUND):
                matrix[o + i, 4 * n + g] = matrix[4 * n + g, o + i] = sums[10 + 4 * g + i] * first
        for m in range(k):
            c = boxes[m]
            if max(b[TOP], c[TOP]) >= min(b[BOTTOM], c[BOTTOM]):
                continue
            if max(b[LEFT], c[LEFT]) >= min(b[RIGHT], c[RIGHT]):
                continue
            _cross_terms(images[k], b, images[m], c, block, cross)
            for i in range(4):
                for j in range(4):
                    value = cross[(i + 1) % 4, (j + 1) % 4]
                    if i != A:
                        value *= theta[k, A]
                    if j != A:
                        value *= theta[m, A]
                    matrix[o + i, 4 * m + j] = matrix[4 * m + j, o + i] = value
    matrix[4 * n :, 4 * n :] = block.ground


@njit(cache=True, nogil=True)
def fill_right(
    images: Float32Array,
    theta: FloatArray,
    boxes: IntArray,
    block: Block,
    residual: Float32Array,
    right: FloatArray,
) -> None:
    """Fill `right` (4n + 3,) with J^T W r of (4); `residual` (H', W') is r, the rest as in `fill_matrix`."""
    n, sums, space = theta.shape[0], np.empty(4), block.space
    for k in range(n):
        b = boxes[k]
        width = b[RIGHT] - b[LEFT]
        pitch, left = pitch_of(width), b[LEFT] - block.corner[1]
        area = (b[BOTTOM] - b[TOP]) * pitch
        for i in range(b[BOTTOM] - b[TOP]):
            line = residual[b[TOP] - block.corner[0] + i, left : left + width]
            weight = block.packed[k, 0, i * pitch : i * pitch + width]
            weighed = space[i * pitch : i * pitch + width]
            for j in range(width):
                weighed[j] = weight[j] * line[j]
            space[i * pitch + width : (i + 1) * pitch] = 0.0
        _own_right(images[k], space, area, sums)
        for i in range(4):
            right[4 * k + i] = sums[i] if i == A else sums[i] * theta[k, A]
    _ground_right(block.weight, residual, right[4 * n :])


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _ground_right(weight: Float32Array, residual: Float32Array, right: FloatArray) -> None:
    """Fill the plane's part (3,) of `fill_right`."""
    right[:] = 0.0
    scale, middle = 2.0 / max(weight.shape[0], weight.shape[1]), 0.5 * (weight.shape[1] - 1)
    step, first, nothing = np.float32(scale), np.float32(-scale * middle), np.float32(0.0)
    for i in range(weight.shape[0]):
        r0, r1, line, rest = nothing, nothing, weight[i], residual[i]
        for j in range(weight.shape[1]):
            w = line[j] * rest[j]
            r0 += w
            r1 += w * (first + step * np.float32(j))
        right[0] += r0
        right[1] += r1
        right[2] += r0 * (scale * (i - 0.5 * (weight.shape[0] - 1)))


@njit(cache=True, nogil=True)
def prior_chi_square(theta: FloatArray, prior: Prior) -> float:
    """The second term of (3): what unexpected brightnesses add to chi-square."""
    total = 0.0
    for k in range(theta.shape[0]):
        total += (theta[k, A] - prior.brightness) ** 2
    return float(prior.precision * total)


@njit(cache=True, nogil=True)
def add_prior(theta: FloatArray, prior: Prior, matrix: FloatArray, right: FloatArray) -> None:
    """Add the brightnesses' prior to the normal equations."""
    for k in range(theta.shape[0]):
        matrix[4 * k + A, 4 * k + A] += prior.precision
        right[4 * k + A] += prior.precision * (prior.brightness - theta[k, A])


@njit(cache=True, nogil=True)
def hold_at_ends(theta: FloatArray, psf: Psf, matrix: FloatArray, right: FloatArray) -> None:
    """Hold depths at an end of the PSF model that would leave it, so that the other parameters can converge."""
    for k in range(theta.shape[0]):
        m = 4 * k + Z
        if (theta[k, Z] <= psf.z_min_um and right[m] < 0.0) or (
            theta[k, Z] >= psf.z_max_um and right[m] > 0.0
        ):
            diagonal = matrix[m, m]
            matrix[m, :] = 0.0
            matrix[:, m] = 0.0
            matrix[m, m] = diagonal
            right[m] = 0.0


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def fill_residual(
    images: Float32Array,
    theta: FloatArray,
    boxes: IntArray,
    block: Block,
    ground: FloatArray,
    out: Float32Array,
) -> float:
    """Fill `out` (H', W') with the data less the particles and the plane `ground` (3,); returns its chi-square."""
    data, weight, corner = block.data, block.weight, block.corner
    tall, wide = data.shape
    scale = 2.0 / max(tall, wide)
    step = np.float32(ground[1] * scale)
    for i in range(tall):
        level = np.float32(
            ground[0] + ground[2] * scale * (i - 0.5 * (tall - 1)) - ground[1] * scale * 0.5 * (wide - 1)
        )
        line, seen = out[i], data[i]
        for j in range(wide):
            line[j] = seen[j] - (level + step * np.float32(j))
    local = np.empty(BOX, np.int64)
    for k in range(theta.shape[0]):
        local[TOP], local[BOTTOM] = boxes[k, TOP] - corner[0], boxes[k, BOTTOM] - corner[0]
        local[LEFT], local[RIGHT] = boxes[k, LEFT] - corner[1], boxes[k, RIGHT] - corner[1]
        add(out, theta[k], local, images[k], -1.0)
    return chi_square_of(out, weight, 0, tall, 0, wide)


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def chi_square_of(
    residual: Float32Array, weight: Float32Array, top: int, bottom: int, left: int, right: int
) -> float:
    """Sum of w r^2 over a rectangle of a block."""
    chi = 0.0
    for i in range(top, bottom):
        rest, line, total = residual[i, left:right], weight[i, left:right], np.float32(0.0)
        for j in range(right - left):
            total += line[j] * rest[j] * rest[j]
        chi += total
    return chi
