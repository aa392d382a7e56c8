"""Sums over bins of what is left of a frame when the known particles are taken away, and over windows of bins."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.arguments import Float32Array

BIN_PX = 4
"""px: half of the narrowest image. Smaller bins cost more and see the sharpest ones only a little better."""
LEVEL_BINS = 4
"""Side of the parts, 16 px, over which the background is averaged at first."""
LEAST_LIGHT = 0.05
"""Part of the background's variance that a bin has at least."""


@njit(cache=True, nogil=True, fastmath=True)
def bin_residual(contrast: Float32Array, total: Float32Array, sums: Float32Array) -> None:
    """Fill `sums` (3, h, w) with those of the residual, of `total` (H, W) and of its square; (H, W) the contrast.

    The last bins of rows and columns may be cut.
    """
    height, width = contrast.shape
    row = np.empty((3, width), np.float32)
    for i in range(sums.shape[1]):
        row[:] = 0.0
        for y in range(i * BIN_PX, min((i + 1) * BIN_PX, height)):
            c, t = contrast[y], total[y]
            for x in range(width):
                row[0, x] += c[x] - t[x]
                row[1, x] += t[x]
                row[2, x] += t[x] * t[x]
        for k in range(3):
            for j in range(width // BIN_PX):
                x = j * BIN_PX
                sums[k, i, j] = row[k, x] + row[k, x + 1] + row[k, x + 2] + row[k, x + 3]
            if width % BIN_PX:
                sums[k, i, -1] = row[k, width // BIN_PX * BIN_PX :].sum()


@njit(cache=True, nogil=True, fastmath=True)
def window_sums(values: Float32Array, size: int, out: Float32Array) -> None:
    """Fill `out` (h, w) with the sums of `values` (h, w) over windows of `size` x `size`, cut at the edges."""
    tall, wide = values.shape
    half = size // 2
    column = np.zeros(wide + 2 * half, np.float32)
    inner = column[half : half + wide]
    for y in range(tall):
        inner[:] = 0.0
        for row in range(max(y - half, 0), min(y + half + 1, tall)):
            line = values[row]
            for x in range(wide):
                inner[x] += line[x]
        here = out[y]
        for x in range(wide):
            here[x] = column[x]
        for k in range(1, size):
            shifted = column[k : k + wide]
            for x in range(wide):
                here[x] += shifted[x]


@njit(cache=True, nogil=True, fastmath=True)
def spread_of(
    sums: Float32Array,
    count: Float32Array,
    variance: float,
    by_image: float,
    noise: Float32Array,
    around: Float32Array,
) -> None:
    """Fill `noise` (h, w), V of each bin, and `around` (h, w), T2 of each bin and its eight neighbours."""
    tall, wide = count.shape
    image, square = sums[1], sums[2]
    one, each = np.float32(variance), np.float32(by_image)
    for y in range(tall):
        up, down = max(y - 1, 0), min(y + 1, tall - 1)
        for x in range(wide):
            n = count[y, x]
            noise[y, x] = max(n * one + each * image[y, x], np.float32(LEAST_LIGHT) * n * one)
            around[y, x] = square[y, x] + square[up, x] + square[down, x]
        before = around[y, 0]
        for x in range(wide):
            here = around[y, x]
            after = around[y, x + 1] if x + 1 < wide else here
            around[y, x] = before + here + after
            before = here


@njit(cache=True, nogil=True, fastmath=True)
def sums_of_parts(
    residual: Float32Array,
    count: Float32Array,
    variance: Float32Array,
    around: Float32Array,
    level: Float32Array,
    beyond: float,
    out: Float32Array,
) -> None:
    """Fill `out` (2, h', w') with what the residual (h, w) is off the `level` (h, w) so far in the bins of each
    part that are background, and their pixels.

    Those are bins without images, and not more than `beyond` standard deviations off.
    """
    out[:] = 0.0
    limit, zero = np.float32(beyond * beyond), np.float32(0.0)
    for y in range(count.shape[0]):
        row = y // LEVEL_BINS
        for part in range(out.shape[2]):
            total, pixels = zero, zero
            for x in range(part * LEVEL_BINS, min((part + 1) * LEVEL_BINS, count.shape[1])):
                off = residual[y, x] - count[y, x] * level[y, x]
                counts = around[y, x] < variance[y, x] and off * off < limit * variance[y, x]
                total += off if counts else zero
                pixels += count[y, x] if counts else zero
            out[0, row, part] += total
            out[1, row, part] += pixels


@njit(cache=True, nogil=True, fastmath=True)
def add_level(parts: Float32Array, out: Float32Array) -> None:
    """Add to `out` (h, w), bins, values between those of `parts` (h', w'), which are in the middle of each part."""
    tall, wide = parts.shape
    line = np.empty(wide, np.float32)
    left, right = np.empty(out.shape[1], np.int64), np.empty(out.shape[1], np.int64)
    across = np.empty(out.shape[1], np.float32)
    for x in range(out.shape[1]):
        at = min(max((x + 0.5) / LEVEL_BINS - 0.5, 0.0), wide - 1.0)
        left[x] = int(at)
        right[x], across[x] = min(left[x] + 1, wide - 1), at - left[x]
    for y in range(out.shape[0]):
        at = min(max((y + 0.5) / LEVEL_BINS - 0.5, 0.0), tall - 1.0)
        top = int(at)
        bottom, below = min(top + 1, tall - 1), np.float32(at - top)
        for k in range(wide):
            line[k] = parts[top, k] + below * (parts[bottom, k] - parts[top, k])
        for x in range(out.shape[1]):
            out[y, x] += line[left[x]] + across[x] * (line[right[x]] - line[left[x]])
