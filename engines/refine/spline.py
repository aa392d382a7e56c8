"""A window of a particle's image, and its derivatives, from a cubic B-spline over depth, rows and columns.

The image of a particle of brightness 1 is

    f(x, y; z) = sum_jkl c_jkl B(z - j) B(y - k) B(x - l)    (1)

with the cubic B-spline B (Unser 1999, IEEE Signal Processing Magazine 16(6), 22) and depth z in nodes, x and y in
pixels. Li et al. (2018), Nature Methods 15, 367, use the same for single molecules. (1) is separable: depth first,
then columns, then rows, each only where the window needs it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from engines.refine.arguments import Float32Array, FloatArray

VALUE, BY_X, BY_Y, BY_Z = range(4)
SMOOTHING = np.array([1.0, 4.0, 1.0]) / 6.0
"""Cubic B-spline at the nodes -1, 0, 1: from coefficients to values on pixels."""
TAPS = 4
"""Nodes on which a cubic B-spline is not zero between two nodes."""


class Window(NamedTuple):
    """Depth in nodes; row and column of the model that the first pixel shows, may be fractions; size in pixels."""

    node: float
    start_y: float
    start_x: float
    height: int
    width: int


@njit(cache=True, nogil=True, inline="always")
def weights(fraction: float, value: FloatArray, slope: FloatArray) -> None:
    """Fill `value` (4,) with B at the nodes -1, 0, 1, 2 as seen from `fraction` behind node 0; `slope` with B'."""
    t, s = fraction, 1.0 - fraction
    value[0] = s * s * s / 6.0
    value[1] = (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0
    value[2] = (3.0 * s * s * s - 6.0 * s * s + 4.0) / 6.0
    value[3] = t * t * t / 6.0
    slope[0] = -s * s / 2.0
    slope[1] = (3.0 * t * t - 4.0 * t) / 2.0
    slope[2] = (-3.0 * s * s + 4.0 * s) / 2.0
    slope[3] = t * t / 2.0


@njit(cache=True, nogil=True)
def mirror(index: int, size: int) -> int:
    """The node of a spline of `size` nodes that continues it, mirrored, beyond its ends."""
    if index < 0:
        index = -index
    if index >= size:
        index = 2 * (size - 1) - index
    return min(max(index, 0), size - 1)


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def evaluate_window(
    coefficients: Float32Array,
    window: Window,
    per_um: float,
    gradients: bool,
    space: Float32Array,
    out: Float32Array,
) -> None:
    """Fill `out` (4, >= height, >= width) with (1) and its derivatives by the particle's x, y (px) and z (um).

    `coefficients` (J, P, P); `per_um` nodes per um. The spline is mirrored beyond its edges. Without `gradients`
    only the image is filled. `space` (5, >= height + 3, >= width + 3) is work space.
    """
    depths = coefficients.shape[0]
    base = base_of(window.node, depths)
    evaluate_planes(
        coefficients[mirror(base - 1, depths)],
        coefficients[base],
        coefficients[mirror(base + 1, depths)],
        coefficients[mirror(base + 2, depths)],
        window,
        window.node - base,
        per_um,
        gradients,
        space,
        out,
    )


@njit(cache=True, nogil=True, inline="always")
def base_of(node: float, depths: int) -> int:
    """The node before a depth, in nodes."""
    return int(min(max(int(node), 0), depths - 2))


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def evaluate_planes(
    d0: Float32Array,
    d1: Float32Array,
    d2: Float32Array,
    d3: Float32Array,
    window: Window,
    fraction: float,
    per_um: float,
    gradients: bool,
    space: Float32Array,
    out: Float32Array,
) -> None:
    """`evaluate_window` at a depth, `fraction` of a node behind that of `d1`, between nodes with planes (P, P)."""
    _, start_y, start_x, height, width = window
    plane, rows = space[:2], space[2:]
    size = d1.shape[0]
    wz, sz, w, s = np.empty(TAPS), np.empty(TAPS), np.empty(TAPS), np.empty(TAPS)
    weights(fraction, wz, sz)
    a0, a1, a2, a3 = np.float32(wz[0]), np.float32(wz[1]), np.float32(wz[2]), np.float32(wz[3])
    b0, b1 = np.float32(sz[0] * per_um), np.float32(sz[1] * per_um)
    b2, b3 = np.float32(sz[2] * per_um), np.float32(sz[3] * per_um)
    first_y, first_x = int(np.floor(start_y)), int(np.floor(start_x))
    tall, wide = height + TAPS - 1, width + TAPS - 1
    for i in range(tall):
        r = mirror(first_y - 1 + i, size)
        for j in range(wide):
            q = first_x - 1 + j
            if q < 0 or q >= size:
                q = mirror(q, size)
            plane[0, i, j] = a0 * d0[r, q] + a1 * d1[r, q] + a2 * d2[r, q] + a3 * d3[r, q]
            if gradients:
                plane[1, i, j] = b0 * d0[r, q] + b1 * d1[r, q] + b2 * d2[r, q] + b3 * d3[r, q]
    weights(start_x - first_x, w, s)
    a0, a1, a2, a3 = np.float32(w[0]), np.float32(w[1]), np.float32(w[2]), np.float32(w[3])
    b0, b1, b2, b3 = np.float32(s[0]), np.float32(s[1]), np.float32(s[2]), np.float32(s[3])
    for i in range(tall):
        p = plane[0, i]
        for j in range(width):
            rows[0, i, j] = a0 * p[j] + a1 * p[j + 1] + a2 * p[j + 2] + a3 * p[j + 3]
        if gradients:
            z = plane[1, i]
            for j in range(width):
                rows[1, i, j] = -(b0 * p[j] + b1 * p[j + 1] + b2 * p[j + 2] + b3 * p[j + 3])
            for j in range(width):
                rows[2, i, j] = a0 * z[j] + a1 * z[j + 1] + a2 * z[j + 2] + a3 * z[j + 3]
    weights(start_y - first_y, w, s)
    a0, a1, a2, a3 = np.float32(w[0]), np.float32(w[1]), np.float32(w[2]), np.float32(w[3])
    b0, b1, b2, b3 = np.float32(s[0]), np.float32(s[1]), np.float32(s[2]), np.float32(s[3])
    v, x, z = rows[0], rows[1], rows[2]
    for i in range(height):
        for j in range(width):
            out[0, i, j] = a0 * v[i, j] + a1 * v[i + 1, j] + a2 * v[i + 2, j] + a3 * v[i + 3, j]
        if gradients:
            for j in range(width):
                out[1, i, j] = a0 * x[i, j] + a1 * x[i + 1, j] + a2 * x[i + 2, j] + a3 * x[i + 3, j]
                out[2, i, j] = -(b0 * v[i, j] + b1 * v[i + 1, j] + b2 * v[i + 2, j] + b3 * v[i + 3, j])
                out[3, i, j] = a0 * z[i, j] + a1 * z[i + 1, j] + a2 * z[i + 2, j] + a3 * z[i + 3, j]
