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


@njit(cache=True, nogil=True, inline="always")
def base_of(node: float, depths: int) -> int:
    """The node before a depth, in nodes."""
    return int(min(max(int(node), 0), depths - 2))


@njit(cache=True, nogil=True, inline="always")
def pitch_of(width: int) -> int:
    """How far apart the rows of a window of so many columns begin in what `evaluate_planes` fills."""
    return width + TAPS - 1


@njit(cache=True, nogil=True)
def evaluate_window(
    coefficients: Float32Array,
    window: Window,
    per_um: float,
    gradients: bool,
    out: Float32Array,
) -> None:
    """Fill `out` (4, >= height, >= width) with (1) and its derivatives by the particle's x, y (px) and z (um).

    `coefficients` (J, P, P); `per_um` nodes per um. The spline is mirrored beyond its edges. Without `gradients`
    only the image is filled.
    """
    depths = coefficients.shape[0]
    base = base_of(window.node, depths)
    area = (window.height + TAPS) * (window.width + TAPS)
    work, flat = np.empty((5, area), np.float32), np.empty((4, area), np.float32)
    evaluate_planes(
        coefficients[mirror(base - 1, depths)],
        coefficients[base],
        coefficients[mirror(base + 1, depths)],
        coefficients[mirror(base + 2, depths)],
        window,
        window.node - base,
        per_um,
        gradients,
        work,
        flat,
    )
    unpack(flat, window.height, window.width, 4 if gradients else 1, out)


@njit(cache=True, nogil=True)
def unpack(flat: Float32Array, height: int, width: int, parts: int, out: Float32Array) -> None:
    """Copy the first `parts` of `evaluate_planes` to `out` (4, >= height, >= width)."""
    pitch = pitch_of(width)
    for part in range(parts):
        for i in range(height):
            for j in range(width):
                out[part, i, j] = flat[part, i * pitch + j]


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
    """Fill `out` (4, S) with `evaluate_window` at a depth, `fraction` of a node behind that of `d1`, between nodes
    with planes (P, P).

    A row begins every `pitch_of(width)` values, so that rows and columns are summed in single loops over all of the
    window, which the compiler makes into vector instructions however narrow it is. What is between the rows is
    finite, and means nothing. `space` (5, S) is work space, S at least (height + 4) x (width + 4).
    """
    _, start_y, start_x, height, width = window
    size, pitch = d1.shape[0], pitch_of(width)
    wz, sz, w, s = np.empty(TAPS), np.empty(TAPS), np.empty(TAPS), np.empty(TAPS)
    weights(fraction, wz, sz)
    first_y, first_x = int(np.floor(start_y)), int(np.floor(start_x))
    tall = height + TAPS - 1
    low = min(max(first_x - 1, 0), size)  # columns that need no mirror
    high = max(min(first_x - 1 + pitch, size), low)
    before = min(max(low - first_x + 1, 0), pitch)
    behind = before + high - low
    for k in range(2 if gradients else 1):
        of, per = (wz, 1.0) if k == 0 else (sz, per_um)
        a0, a1 = np.float32(of[0] * per), np.float32(of[1] * per)
        a2, a3 = np.float32(of[2] * per), np.float32(of[3] * per)
        for i in range(tall):
            r = mirror(first_y - 1 + i, size)
            e0, e1, e2, e3 = d0[r, low:high], d1[r, low:high], d2[r, low:high], d3[r, low:high]
            q = space[k, i * pitch + before : i * pitch + behind]
            for j in range(high - low):
                q[j] = a0 * e0[j] + a1 * e1[j] + a2 * e2[j] + a3 * e3[j]
            for j in range(before):
                m = mirror(first_x - 1 + j, size)
                space[k, i * pitch + j] = a0 * d0[r, m] + a1 * d1[r, m] + a2 * d2[r, m] + a3 * d3[r, m]
            for j in range(behind, pitch):
                m = mirror(first_x - 1 + j, size)
                space[k, i * pitch + j] = a0 * d0[r, m] + a1 * d1[r, m] + a2 * d2[r, m] + a3 * d3[r, m]
    weights(start_x - first_x, w, s)
    last = tall * pitch - TAPS + 1
    _sum_four(space[0, :], 1, last, w, 1.0, space[2, :])
    if gradients:
        _sum_four(space[0, :], 1, last, s, -1.0, space[3, :])
        _sum_four(space[1, :], 1, last, w, 1.0, space[4, :])
    space[2:, last : last + TAPS] = 0.0
    weights(start_y - first_y, w, s)
    area = height * pitch
    _sum_four(space[2, :], pitch, area, w, 1.0, out[VALUE, :])
    if gradients:
        _sum_four(space[3, :], pitch, area, w, 1.0, out[BY_X, :])
        _sum_four(space[2, :], pitch, area, s, -1.0, out[BY_Y, :])
        _sum_four(space[4, :], pitch, area, w, 1.0, out[BY_Z, :])


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def _sum_four(
    values: Float32Array, apart: int, count: int, weigh: FloatArray, factor: float, out: Float32Array
) -> None:
    """Fill `out` (>= count,) with the weighed sums of four `values` that are `apart`, times `factor`."""
    a0, a1 = np.float32(factor * weigh[0]), np.float32(factor * weigh[1])
    a2, a3 = np.float32(factor * weigh[2]), np.float32(factor * weigh[3])
    first, second = values[:count], values[apart : apart + count]
    third, fourth = values[2 * apart : 2 * apart + count], values[3 * apart : 3 * apart + count]
    for t in range(count):
        out[t] = a0 * first[t] + a1 * second[t] + a2 * third[t] + a3 * fourth[t]
