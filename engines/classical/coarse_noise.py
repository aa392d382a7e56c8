"""Detection threshold for noise that is not normal: clipped, of less than a grey value, or single counts.

A filter's answer to such noise has a longer tail than a normal distribution of the same width, so a threshold in
standard deviations lets too much of it pass. The tail follows from the distribution of the pixels, which is
measured, and the filter's weights w: the answer is a sum of independent terms with the cumulant generating function
K(s) = sum over w of ln E exp(s w p), and the chance to exceed its saddlepoint value K'(s) is that of a normal
variable to exceed the signed root sqrt(2 (s K'(s) - K(s))) (Daniels, Ann. Math. Stat. 25, 631, 1954; Lugannani &
Rice, Adv. Appl. Prob. 12, 475, 1980).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

HEAPED_PART = 0.002
"""Part of the pixels with the least or the greatest value of all above which noise is coarse."""
HEAPED_WITHIN_SIGMAS = 5.0
"""The same value must lie within so many standard deviations of the median, or it belongs to particles."""
SAMPLES = 20_000
"""Pixels that are looked at; a part of 0.002 is then 40 pixels."""
AROUND_PX = 9
"""Side of the square, px, whose mean is the background of a pixel: large enough for its noise to be a ninth of a
pixel's."""
NOISE_WITHIN_SIGMAS = 6.0
"""A pixel farther from the background than this, in standard deviations and in grey values, is no noise."""
NOISE_WITHIN_STEPS = 4.0
"""The same in grey values."""
MOST_PIXELS = 300_000
"""Pixels of which the distribution is taken, about; of larger images only bands of rows."""
BAND_ROWS = 48
"""Rows of such a band."""
BINS = 128
"""Bins of the distribution, more than there are grey values in coarse noise."""
FEWEST_PIXELS = 2_000
"""Fewest pixels without particles from which a distribution is taken; its tail needs them."""
BISECTIONS = 40
"""Most halvings of the interval for the level; 10 give its tolerance of 0.1 %."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelNoise:
    """How the pixels of an image are distributed around their background: `values` (N,) and `shares` (N,)."""

    values: FloatArray
    shares: FloatArray

    @property
    def sigma(self) -> float:
        """The standard deviation."""
        return math.sqrt(float(self.shares @ self.values**2))

    def mirrored(self) -> PixelNoise:
        """That of the negative image."""
        return PixelNoise(-self.values, self.shares)


def is_coarse(image: Float32Array, sigma: float) -> bool:
    """Whether many pixels of an image with noise `sigma` lie at its least or greatest value, near its median."""
    sample = image.ravel()[:: max(1, image.size // SAMPLES)]
    middle, within = float(np.median(sample)), HEAPED_WITHIN_SIGMAS * sigma
    return any(
        abs(end - middle) <= within and np.count_nonzero(sample == end) > HEAPED_PART * sample.size
        for end in (float(sample.min()), float(sample.max()))
    )


def noise_of(image: Float32Array, particles: FloatArray, sigma: float, step: float) -> PixelNoise | None:
    """The distribution of an image's noise, `sigma` being its width as far as known and `step` a grey value.

    `particles` (3, N) are centres and radii, px, that are left out. None where too little is left, or no noise.
    """
    free = np.ones(image.shape, np.bool_)
    for x, y, radius in particles.T:
        rows = slice(max(0, int(y - radius)), int(y + radius) + 2)
        free[rows, max(0, int(x - radius)) : int(x + radius) + 2] = False
    bands = max(1, round(image.size / MOST_PIXELS))
    height = max(1, image.shape[0] // bands)
    found = []
    for top in range(0, image.shape[0] - height + 1, height):
        band = slice(top, top + (height if bands == 1 else min(height, BAND_ROWS)))
        part = image[band]
        off = part - ndimage.uniform_filter(part, AROUND_PX, mode="nearest")
        found.append(off[free[band]])
    values = np.concatenate(found).astype(np.float64)
    values = values[np.abs(values) <= max(NOISE_WITHIN_SIGMAS * sigma, NOISE_WITHIN_STEPS * step)]
    if values.size < FEWEST_PIXELS or np.ptp(values) == 0:
        return None
    count, edges = np.histogram(values, BINS)
    total, _ = np.histogram(values, edges, weights=values)
    seen = count > 0
    means = total[seen] / count[seen]
    shares = count[seen] / values.size
    return PixelNoise(means - shares @ means, shares)


def level_as_rare(noise: PixelNoise, weights: FloatArray, counts: FloatArray, threshold: float) -> float:
    """The answer of a filter that is as rare as `threshold` standard deviations of a normal distribution.

    `weights` (W,) are those of single pixels, each there `counts` (W,) times.
    """
    low, high = 0.0, 1.0 / max(1e-12, float(np.abs(weights).max()) * noise.sigma)
    while _root_and_level(noise, weights, counts, high)[0] < threshold and high < 1e12:
        low, high = high, 2.0 * high
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if _root_and_level(noise, weights, counts, middle)[0] < threshold:
            low = middle
        else:
            high = middle
        if high - low < 1e-3 * high:
            break
    return _root_and_level(noise, weights, counts, high)[1]


def _root_and_level(
    noise: PixelNoise, weights: FloatArray, counts: FloatArray, s: float
) -> tuple[float, float]:
    """The signed root with its correction, and the saddlepoint value K'(s)."""
    exponent = s * np.outer(weights, noise.values)
    largest = exponent.max(axis=1)
    terms = noise.shares * np.exp(exponent - largest[:, None])
    sums = terms.sum(axis=1)
    mean = terms @ noise.values / sums
    variance = np.maximum(terms @ noise.values**2 / sums - mean**2, 0.0)
    k = float(counts @ (np.log(sums) + largest))
    level = float(counts @ (weights * mean))
    root = math.sqrt(max(0.0, 2.0 * (s * level - k)))
    curved = s * math.sqrt(float(counts @ (weights**2 * variance)))
    if root > 1.0 and curved > 0:
        root += math.log(curved / root) / root
    return root, level
