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
    column = np.zeros(wide)
    for y in range(min(half, tall)):
        column += values[y]
    for y in range(tall):
        if y + half < tall:
            column += values[y + half]
        if y - half - 1 >= 0:
            column -= values[y - half - 1]
        total = 0.0
        for x in range(min(half, wide)):
            total += column[x]
        for x in range(wide):
            if x + half < wide:
                total += column[x + half]
            if x - half - 1 >= 0:
                total -= column[x - half - 1]
            out[y, x] = total


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
    """Fill `out` (2, h', w') with the residual (h, w) and the pixels of the bins of each part that are background.

    Those are bins without images, and not more than `beyond` standard deviations off the `level` (h, w) so far.
    """
    out[:] = 0.0
    limit = np.float32(beyond * beyond)
    for y in range(count.shape[0]):
        for x in range(count.shape[1]):
            off = residual[y, x] - count[y, x] * level[y, x]
            if around[y, x] < variance[y, x] and off * off < limit * variance[y, x]:
                out[0, y // LEVEL_BINS, x // LEVEL_BINS] += residual[y, x]
                out[1, y // LEVEL_BINS, x // LEVEL_BINS] += count[y, x]
