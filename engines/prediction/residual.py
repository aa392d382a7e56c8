"""What is left of a frame when the known particles are taken away: where it is more than noise.

The residual is summed over bins of `BIN_PX` x `BIN_PX` pixels, S, whose variance V is that of the noise. Where known
particles are, it may be as unlike the model as theirs typically are on this frame: with the sum T2 of the squares
of their images over the bin and its neighbours, r = S / sqrt(V + k T2) is of unit variance. k is what the bins with
much of T2 show themselves, by their 90 % quantile, which no new particles reach. Where

    |sum of r| / w,  w = SIGNED    or    sum of r^2,  w = ENERGY

over w x w bins is beyond what noise gives in `FALSE` bins of a frame, there is something. On the simulated optics
this sees particles of a signal-to-noise ratio (over all of their pixels) from 7 to 11 on, whatever their depth.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.special import ndtri
from scipy.stats import chi2

from engines.refine.arguments import BoolArray, Float32Array, Noise

BIN_PX = 4
"""px: half of the narrowest image. Smaller bins cost more and see the sharpest ones only a little better."""
SIGNED, ENERGY = (3, 7), (5,)
"""Widths of the windows, bins: of the narrowest image, 12 px, to the middle part of the widest; a sum of squares
sees images with dark and bright parts. The window that suits a particle best and the next one differ by a tenth in
the least ratio that is seen."""
FALSE = 0.1
"""Windows of each kind that pass in a frame by chance: each costs a tile of the network, a hundredth of a frame."""
GROUND_BINS = 33
"""Width of the window, 132 px, over which the background is levelled: as the fit's planes do, wider than particles."""
GROUND_SIGMAS = 3.0
"""Bins farther off than this do not count in that level."""
BRIGHT_QUANTILE, OF_NOISE = 0.9, 2.7055
"""Quantile of r^2 by which k is found, and its value for noise: chi-square of one degree of freedom."""
FEWEST_BRIGHT = 50
"""Bins with images below which k is that of well modelled optics."""
LEAST_MISFIT = 2e-4
"""k of well modelled optics: 1.4 % of an image's contrast."""


class Binned(NamedTuple):
    """Sums over bins (h, w): the `residual`, the `image` of the known particles and its square, pixels `count`."""

    residual: Float32Array
    image: Float32Array
    square: Float32Array
    count: Float32Array


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


@lru_cache(maxsize=16)
def limits(bins: int) -> tuple[float, float]:
    """Least |sum of r| / w and sum of r^2 that count, in a frame of so many bins."""
    chance = FALSE / max(bins, 1)
    return float(-ndtri(0.5 * chance)), float(chi2.isf(chance, ENERGY[0] ** 2))


def standardised(sums: Float32Array, shape: tuple[int, int], noise: Noise) -> Float32Array:
    """r (h, w) of the `sums` (3, h, w) of an image of `shape` (H, W)."""
    residual, image, square = sums
    count = _pixels(shape)
    variance = np.maximum(count * np.float32(noise.read + noise.shot) + np.float32(noise.shot * noise.sign) * image,
                          count * np.float32(0.05 * (noise.read + noise.shot)))
    around = np.empty_like(square)
    window_sums(square, 3, around)
    np.maximum(around, 0.0, out=around)
    r = residual / np.sqrt(variance)
    plain = (np.abs(r) < GROUND_SIGMAS) & (around < variance)
    held, pixels = np.empty_like(r), np.empty_like(r)
    window_sums(np.where(plain, residual, np.float32(0.0)), GROUND_BINS, held)
    window_sums(np.where(plain, count, np.float32(0.0)), GROUND_BINS, pixels)
    left = residual - count * held / np.maximum(pixels, 1.0)
    bright = around > variance
    k = LEAST_MISFIT
    if bright.sum() >= FEWEST_BRIGHT:
        excess = (left[bright] ** 2 / OF_NOISE - variance[bright]) / around[bright]
        k = max(k, float(np.quantile(excess, BRIGHT_QUANTILE)))
    found: Float32Array = left / np.sqrt(variance + np.float32(k) * around)
    return found


@lru_cache(maxsize=4)
def _pixels(shape: tuple[int, int]) -> Float32Array:
    """Pixels (h, w) of each bin of an image of `shape` (H, W)."""
    sides = [np.minimum(BIN_PX, size - BIN_PX * np.arange(-(-size // BIN_PX))) for size in shape]
    return np.outer(*sides).astype(np.float32)


def left_over(contrast: Float32Array, total: Float32Array, noise: Noise) -> BoolArray:
    """Bins (h, w) of a frame around which the `contrast` (H, W) less the image of known particles is not noise."""
    height, width = contrast.shape
    sums = np.empty((3, -(-height // BIN_PX), -(-width // BIN_PX)), np.float32)
    bin_residual(contrast, total, sums)
    r = standardised(sums, (height, width), noise)
    signed, energy = limits(r.size)
    found = np.zeros(r.shape, np.bool_)
    work = np.empty_like(r)
    for size in SIGNED:
        window_sums(r, size, work)
        found |= np.abs(work) > size * signed
    for size in ENERGY:
        window_sums(r * r, size, work)
        found |= work > energy
    return found
