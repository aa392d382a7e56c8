"""What is left of a frame when the known particles are taken away: where it is more than noise.

The residual is summed over bins of `BIN_PX` x `BIN_PX` pixels, S, whose variance V is that of the noise. Where
known particles are, it may be as unlike the model as theirs typically are on this frame: with the sum T2 of the
squares of their images over the bin and its neighbours, r = S / sqrt(V + k T2) is of unit variance. k is what the
bins with much of T2 show themselves, by their 90 % quantile, which no new particles reach. Where

    |sum of r| / w,  w = SIGNED    or    sum of r^2,  w = ENERGY

over w x w bins is beyond what noise gives in `FALSE` bins of a frame, there is something. The level of the
background is taken off first, as the fit does it. Where the windows of a frame scatter more than noise does, as
before particles far out of focus, the limits are as much higher. By calculation for
the simulated optics this sees particles of a signal-to-noise ratio (over all of their pixels) from 7 to 11 on,
whatever their depth.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import ndtri
from scipy.stats import chi2

from engines.refine.arguments import BoolArray, Float32Array, Noise
from engines.refine.residual_bins import (
    BIN_PX,
    LEVEL_BINS,
    add_level,
    bin_residual,
    mark_peaks,
    set_free,
    spread_of,
    standardise,
    sums_of_parts,
    window_sums,
)

SIGNED, ENERGY = (3, 7), (5,)
"""Widths of the windows, bins: of the narrowest image, 12 px, to the middle part of the widest; a sum of squares
sees images with dark and bright parts. The window that suits a particle best and the next one differ by a tenth in
the least ratio that is seen."""
FALSE = 0.1
"""Windows of each kind that should pass in a frame by chance (0.5 to 0.8 were measured of all three together): each
costs a tile of the network, a hundredth of a frame."""
LEVEL_PARTS = 5
"""Parts of the image, 80 px, over which the level of the background is taken: wider than particles, so that those
which are still to be found hardly count as background, and narrow enough for the light of others far out of focus.
Over 13 parts, 10 times as much is left over before such a background, and no more particles are seen."""
SCATTER_STRIDE = 5
"""Every so many-th row and column of windows tells how far they scatter: 9,000 of a frame of 3.7 million pixels,
good to a percent or two."""
OF_ENERGY = 24.335
"""Median of the sum of squares of `ENERGY` x `ENERGY` standard normal numbers, chi-square of 25."""
SIGMA_OF_MEDIAN = 1.4826
"""Standard deviation of a normal distribution over the median of what it is off."""
LEVEL_SIGMAS = (1e9, 3.0)
"""Standard deviations from the level so far beyond which a bin does not count, for each of the rounds."""
TWICE = 1
"""Times that what a level has left is smoothed as well and added (Tukey 1977, twicing): without it slopes would
stay at the edges of the frame; twice follows the light of particles outside of it."""
BRIGHT_QUANTILE, OF_NOISE = 0.9, 2.7055
"""Quantile of r^2 by which k is found, and its value for noise: chi-square of one degree of freedom."""
FEWEST_BRIGHT = 50
"""Bins with images below which k is that of well modelled optics."""
LEAST_MISFIT = 2e-4
"""Least k, 1.4 % of an image's contrast; k is larger wherever the frame shows it, so that this hardly counts."""
PEAK_BINS = 3
"""Bins to each side among which only the one that is farthest beyond the limits counts."""


@lru_cache(maxsize=16)
def limits(bins: int) -> tuple[float, float]:
    """Least |sum of r| / w and sum of r^2 that count, in a frame of so many bins."""
    chance = FALSE / max(bins, 1)
    return float(-ndtri(0.5 * chance)), float(chi2.isf(chance, ENERGY[0] ** 2))


def standardised(sums: Float32Array, shape: tuple[int, int], noise: Noise) -> Float32Array:
    """r (h, w) of the `sums` (3, h, w) of an image of `shape` (H, W)."""
    count = _pixels(shape)
    variance, around, level = np.empty_like(count), np.empty_like(count), np.zeros_like(count)
    spread_of(sums, count, noise.read + noise.shot, noise.shot * noise.sign, variance, around)
    tall, wide = (-(-size // LEVEL_BINS) for size in count.shape)
    held = np.empty((2, tall, wide), np.float32)
    for beyond in LEVEL_SIGMAS:
        sums_of_parts(sums[0], count, variance, around, level, beyond, held)
        add_level(smoothed(held), level)
    left, excess = np.empty_like(count), np.empty(count.size, np.float32)
    bright = set_free(sums[0], count, level, variance, around, OF_NOISE, left, excess)
    k = LEAST_MISFIT
    if bright >= FEWEST_BRIGHT:
        at = int(BRIGHT_QUANTILE * (bright - 1))
        k = max(k, float(np.partition(excess[:bright], at)[at]))
    standardise(left, variance, around, k)
    return left


def smoothed(held: Float32Array) -> Float32Array:
    """The mean over windows of parts (h', w') whose sums and pixels are `held` (2, h', w')."""
    pixels, work = np.empty_like(held[0]), np.empty_like(held[0])
    window_sums(held[1], LEVEL_PARTS, pixels)
    np.maximum(pixels, 1.0, out=pixels)
    found: Float32Array = np.zeros_like(work)
    for _ in range(1 + TWICE):
        window_sums(held[0] - held[1] * found, LEVEL_PARTS, work)
        found += work / pixels
    return found


@lru_cache(maxsize=4)
def _pixels(shape: tuple[int, int]) -> Float32Array:
    """Pixels (h, w) of each bin of an image of `shape` (H, W)."""
    sides = [np.minimum(BIN_PX, size - BIN_PX * np.arange(-(-size // BIN_PX))) for size in shape]
    found: Float32Array = np.outer(*sides).astype(np.float32)
    return found


def beyond_noise(contrast: Float32Array, total: Float32Array, noise: Noise) -> Float32Array:
    """How far (h, w) the surroundings of each bin are beyond noise, 1 at the limit: the largest of the tests.

    Of a frame of `contrast` (H, W) and the image `total` (H, W) of the particles that are known.
    """
    height, width = contrast.shape
    sums = np.empty((3, -(-height // BIN_PX), -(-width // BIN_PX)), np.float32)
    bin_residual(contrast, total, sums)
    r = standardised(sums, (height, width), noise)
    signed, energy = limits(r.size)
    found, work = np.empty_like(r), np.empty_like(r)
    window_sums(r * r, ENERGY[0], found)
    found *= np.float32(1.0 / (energy * max(1.0, _middle(found) / OF_ENERGY)))
    for size in SIGNED:
        window_sums(r, size, work)
        np.abs(work, out=work)
        scatter = max(1.0, SIGMA_OF_MEDIAN * _middle(work) / size)
        work *= np.float32(1.0 / (size * signed * scatter))
        np.maximum(found, work, out=found)
    return found


def _middle(values: Float32Array) -> float:
    """The median of an array (h, w), from some of it."""
    return float(np.median(values[::SCATTER_STRIDE, ::SCATTER_STRIDE]))


def left_over(contrast: Float32Array, total: Float32Array, noise: Noise) -> BoolArray:
    """Bins (h, w) of a frame around which the `contrast` (H, W) less the image of known particles is not noise.

    Also at the edges: images of particles outside reach in, and those that come in are found as soon as by a
    search.
    """
    beyond = beyond_noise(contrast, total, noise)
    found = np.zeros(beyond.shape, np.bool_)
    mark_peaks(beyond, PEAK_BINS, found)
    return found
