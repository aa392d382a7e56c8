"""The normal equations of a block, (4) in `block`: overlapping particles on a plane of background."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.arguments import Float32Array, FloatArray, IntArray, Prior, Psf
from engines.refine.rendering import BOTTOM, BOX, LEFT, RIGHT, TOP, A, Z, add
from engines.refine.spline import BY_X, BY_Y, BY_Z, VALUE

GROUND = 3
"""Parameters of the plane of background."""
LEAST_PIVOT = 1e-11
"""Part of a diagonal element below which what is left of it in Cholesky's decomposition counts as 0: 10^4 to 10^5
rounding errors of double precision. Parameters that only rounding tells apart make the matrix singular."""


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
    return True


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _own_terms(
    image: Float32Array,
    weight: Float32Array,
    residual: Float32Array,
    a: float,
    slope: FloatArray,
    sums: FloatArray,
) -> None:
    """Fill `sums` (26,): weighted products of one particle's derivatives by x, y, z and brightness.

    First the 10 of the derivatives with one another, then 4 with the residual, then 12 with the plane, whose parts
    are 1, and columns and rows, from `slope[0]` and `slope[1]`, in units of 1 / `slope[2]`. `weight` (H, W) is the
    particle's rectangle; `residual` begins there; `a` is the brightness.
    """
    sums[:] = 0.0
    tall, wide = weight.shape
    for i in range(tall):
        xx, xy, xz, xv, yy, yz, yv = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        zz, zv, vv = 0.0, 0.0, 0.0
        rx, ry, rz, rv, cx, cy, cz, cv = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        ux, uy, uz, uv = 0.0, 0.0, 0.0, 0.0
        first, step = np.float32(slope[0] * slope[2]), np.float32(slope[2])
        for j in range(wide):
            w = weight[i, j]
            v, x, y, z = image[VALUE, i, j], image[BY_X, i, j], image[BY_Y, i, j], image[BY_Z, i, j]
            wx, wy, wz, wv, r = w * x, w * y, w * z, w * v, residual[i, j]
            xx += wx * x
            xy += wx * y
            xz += wx * z
            xv += wx * v
            yy += wy * y
            yz += wy * z
            yv += wy * v
            zz += wz * z
            zv += wz * v
            vv += wv * v
            rx += wx * r
            ry += wy * r
            rz += wz * r
            rv += wv * r
            cx += wx
            cy += wy
            cz += wz
            cv += wv
            u = first + step * j
            ux += wx * u
            uy += wy * u
            uz += wz * u
            uv += wv * u
        terms = (xx, xy, xz, xv, yy, yz, yv, zz, zv, vv, rx, ry, rz, rv, cx, cy, cz, cv, ux, uy, uz, uv)
        for k in range(22):
            sums[k] += terms[k]
        row = (slope[1] + i) * slope[2]
        for k in range(4):
            sums[22 + k] += terms[14 + k] * row
    aa = a * a
    for k in (0, 1, 2, 4, 5, 7):
        sums[k] *= aa
    for k in (3, 6, 8, 10, 11, 12, 14, 15, 16, 18, 19, 20, 22, 23, 24):
        sums[k] *= a


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _cross_terms(first: Float32Array, second: Float32Array, weight: Float32Array, out: FloatArray) -> None:
    """Fill `out` (4, 4), in the order value, x, y, z: weighted products of two particles' derivatives."""
    out[:] = 0.0
    for p in range(4):
        for q in range(4):
            total = 0.0
            for i in range(weight.shape[0]):
                for j in range(weight.shape[1]):
                    total += weight[i, j] * first[p, i, j] * second[q, i, j]
            out[p, q] = total


@njit(cache=True, nogil=True)
def normal_equations(
    images: Float32Array,
    theta: FloatArray,
    boxes: IntArray,
    weight: Float32Array,
    residual: Float32Array,
    corner: IntArray,
) -> tuple[FloatArray, FloatArray]:
    """J^T W J (4n + 3, 4n + 3) and J^T W r of (4): x, y, z, brightness of each particle, and the plane.

    `images` (n, 4, H, W) are values and derivatives of the particles `theta` (n, 4) in their rectangles `boxes`
    (n, 4); `weight` and `residual` (H', W') begin at `corner`.
    """
    n = theta.shape[0]
    size = 4 * n + GROUND
    matrix, right, sums, cross = np.zeros((size, size)), np.zeros(size), np.empty(26), np.empty((4, 4))
    scale = 2.0 / max(weight.shape[0], weight.shape[1])
    slope = np.empty(3)
    slope[2] = scale
    for k in range(n):
        b, o = boxes[k], 4 * k
        tall, wide = b[BOTTOM] - b[TOP], b[RIGHT] - b[LEFT]
        top, left = b[TOP] - corner[0], b[LEFT] - corner[1]
        part = weight[top : top + tall, left : left + wide]
        slope[0], slope[1] = left - 0.5 * (weight.shape[1] - 1), top - 0.5 * (weight.shape[0] - 1)
        _own_terms(images[k], part, residual[top:, left:], theta[k, A], slope, sums)
        t = 0
        for i in range(4):
            for j in range(i, 4):
                matrix[o + i, o + j] = matrix[o + j, o + i] = sums[t]
                t += 1
        for i in range(4):
            right[o + i] = sums[10 + i]
            for g in range(GROUND):
                matrix[o + i, 4 * n + g] = matrix[4 * n + g, o + i] = sums[14 + 4 * g + i]
        for m in range(k):
            c = boxes[m]
            y0, y1 = max(b[TOP], c[TOP]), min(b[BOTTOM], c[BOTTOM])
            x0, x1 = max(b[LEFT], c[LEFT]), min(b[RIGHT], c[RIGHT])
            if y0 >= y1 or x0 >= x1:
                continue
            _cross_terms(
                images[k][:, y0 - b[TOP] : y1 - b[TOP], x0 - b[LEFT] : x1 - b[LEFT]],
                images[m][:, y0 - c[TOP] : y1 - c[TOP], x0 - c[LEFT] : x1 - c[LEFT]],
                weight[y0 - corner[0] : y1 - corner[0], x0 - corner[1] : x1 - corner[1]],
                cross,
            )
            for i in range(4):
                for j in range(4):
                    p, q = (i + 1) % 4, (j + 1) % 4
                    value = cross[p, q]
                    if i != A:
                        value *= theta[k, A]
                    if j != A:
                        value *= theta[m, A]
                    matrix[o + i, 4 * m + j] = matrix[4 * m + j, o + i] = value
    _ground_terms(weight, residual, scale, matrix[4 * n :, 4 * n :], right[4 * n :])
    return matrix, right


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def _ground_terms(
    weight: Float32Array, residual: Float32Array, scale: float, matrix: FloatArray, right: FloatArray
) -> None:
    """Fill the plane's part of the normal equations, (3, 3) and (3,)."""
    middle = 0.5 * (weight.shape[1] - 1)
    for i in range(weight.shape[0]):
        w0, w1, w2, r0, r1 = 0.0, 0.0, 0.0, 0.0, 0.0
        for j in range(weight.shape[1]):
            w, u = weight[i, j], scale * (j - middle)
            w0 += w
            w1 += w * u
            w2 += w * u * u
            r0 += w * residual[i, j]
            r1 += w * residual[i, j] * u
        v = scale * (i - 0.5 * (weight.shape[0] - 1))
        matrix[0, 0] += w0
        matrix[0, 1] += w1
        matrix[0, 2] += w0 * v
        matrix[1, 1] += w2
        matrix[1, 2] += w1 * v
        matrix[2, 2] += w0 * v * v
        right[0] += r0
        right[1] += r1
        right[2] += r0 * v
    matrix[1, 0], matrix[2, 0], matrix[2, 1] = matrix[0, 1], matrix[0, 2], matrix[1, 2]


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


@njit(cache=True, nogil=True)
def fill_residual(
    images: Float32Array,
    theta: FloatArray,
    boxes: IntArray,
    data: Float32Array,
    weight: Float32Array,
    ground: FloatArray,
    corner: IntArray,
    out: Float32Array,
) -> float:
    """Fill `out` (H', W') with `data` less the particles and the plane `ground` (3,); returns its chi-square."""
    scale, middle = 2.0 / max(data.shape[0], data.shape[1]), 0.5 * (data.shape[1] - 1)
    for i in range(data.shape[0]):
        level = np.float32(
            ground[0] + ground[2] * scale * (i - 0.5 * (data.shape[0] - 1)) - ground[1] * scale * middle
        )
        step = np.float32(ground[1] * scale)
        for j in range(data.shape[1]):
            out[i, j] = data[i, j] - level - step * j
    local = np.empty(BOX, np.int64)
    for k in range(theta.shape[0]):
        local[TOP], local[BOTTOM] = boxes[k, TOP] - corner[0], boxes[k, BOTTOM] - corner[0]
        local[LEFT], local[RIGHT] = boxes[k, LEFT] - corner[1], boxes[k, RIGHT] - corner[1]
        add(out, theta[k], local, images[k], -1.0)
    chi = 0.0
    for i in range(data.shape[0]):
        for j in range(data.shape[1]):
            chi += weight[i, j] * out[i, j] * out[i, j]
    return chi
