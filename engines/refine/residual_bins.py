"""Sums over bins of what is left of a frame when the known particles are taken away, and over windows of bins."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.arguments import BoolArray, Float32Array

BIN_PX = 4
"""px: half of the narrowest image. Smaller bins cost more; what they would see better was not measured."""
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
        y = i * BIN_PX
        if y + BIN_PX <= height:  # four lines at once: one pass over `row` in place of four
            c0, c1, c2, c3 = contrast[y], contrast[y + 1], contrast[y + 2], contrast[y + 3]
            t0, t1, t2, t3 = total[y], total[y + 1], total[y + 2], total[y + 3]
            for x in range(width):
                t = (t0[x] + t1[x]) + (t2[x] + t3[x])
                row[0, x] = (c0[x] + c1[x]) + (c2[x] + c3[x]) - t
                row[1, x] = t
                row[2, x] = (t0[x] * t0[x] + t1[x] * t1[x]) + (t2[x] * t2[x] + t3[x] * t3[x])
        else:
            row[:] = 0.0
            for y in range(i * BIN_PX, height):
                c, one = contrast[y], total[y]
                for x in range(width):
                    row[0, x] += c[x] - one[x]
                    row[1, x] += one[x]
                    row[2, x] += one[x] * one[x]
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
    wide = count.shape[1]
    total, pixels = (
        np.zeros(out.shape[2] * LEVEL_BINS, np.float32),
        np.zeros(out.shape[2] * LEVEL_BINS, np.float32),
    )
    for y in range(count.shape[0]):
        for x in range(wide):
            off = residual[y, x] - count[y, x] * level[y, x]
            counts = (around[y, x] < variance[y, x]) & (off * off < limit * variance[y, x])
            total[x] = off if counts else zero
            pixels[x] = count[y, x] if counts else zero
        row = y // LEVEL_BINS
        for part in range(out.shape[2]):
            x = part * LEVEL_BINS
            out[0, row, part] += total[x] + total[x + 1] + total[x + 2] + total[x + 3]
            out[1, row, part] += pixels[x] + pixels[x + 1] + pixels[x + 2] + pixels[x + 3]


@njit(cache=True, nogil=True, fastmath=True)
def set_free(
    sums: Float32Array,
    count: Float32Array,
    level: Float32Array,
    variance: Float32Array,
    around: Float32Array,
    of_noise: float,
    left: Float32Array,
    excess: Float32Array,
) -> int:
    """Fill `left` (h, w), the residual less its level, and `excess` with k of the bins that show much of images.

    Returns how many these are.
    """
    n, by = 0, np.float32(1.0 / of_noise)
    for y in range(count.shape[0]):
        for x in range(count.shape[1]):
            left[y, x] = sums[y, x] - count[y, x] * level[y, x]
        for x in range(count.shape[1]):
            if around[y, x] > variance[y, x]:
                excess[n] = (left[y, x] * left[y, x] * by - variance[y, x]) / around[y, x]
                n += 1
    return n


@njit(cache=True, nogil=True, fastmath=True)
def standardise(left: Float32Array, variance: Float32Array, around: Float32Array, k: float) -> None:
    """Divide `left` (h, w) by the root of `variance` + k `around`."""
    part, one = np.float32(k), np.float32(1.0)
    for y in range(left.shape[0]):
        for x in range(left.shape[1]):
            left[y, x] *= one / np.sqrt(variance[y, x] + part * around[y, x])


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


@njit(cache=True, nogil=True)
def mark_peaks(values: Float32Array, reach: int, out: BoolArray) -> None:
    """Set `out` (h, w) where `values` (h, w) are above 1 and not below any within `reach` rows and columns."""
    tall, wide = values.shape
    for y in range(tall):
        for x in range(wide):
            if values[y, x] > 1.0:
                largest = True
                for i in range(max(y - reach, 0), min(y + reach + 1, tall)):
                    for j in range(max(x - reach, 0), min(x + reach + 1, wide)):
                        largest &= values[i, j] <= values[y, x]
                out[y, x] = largest
