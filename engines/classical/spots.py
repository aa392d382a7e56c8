"""Candidate particles: local maxima in a bank of spot-enhancing filters.

The filter is the Laplacian of Gaussian of Sage et al. 2005 (IEEE Trans. Image Process. 14, 1372), in the
form of a difference of two Gaussians, G(s) - G(1.6 s) (Marr & Hildreth 1980), with a width along x and one
along y: the filter of an astigmatic image's own shape has one maximum there, instead of several along its
length. Each filter runs on the image binned to fit its size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from engines.classical.coarse_noise import is_coarse, level_as_rare, noise_of
from engines.classical.filtering import bin_image, difference_of_gaussians, gaussian_kernel
from engines.classical.maxima import local_maxima, strongest_only
from engines.pixel_noise import pixel_noise
from engines.robust_sigma import robust_sigma

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

SURROUND = 1.6
"""Ratio of the two Gaussians' widths: at 1.6 their difference is closest to the Laplacian of Gaussian (Marr &
Hildreth 1980)."""
# Variance of the slope of filtered white noise, times s^2 over its variance: half the integral of
# k^3 (exp(-k^2 / 2) - exp(-1.28 k^2))^2 over the integral of the same with k.
ROUGHNESS = 0.976
FALSE_ALARMS_PER_FRAME = 0.1
"""Candidates of pure noise per frame. Ten times as many lower the threshold by about 0.4 sigma."""
MAX_BINNING = 16
"""Largest binning, px; wider filters run on images binned by this."""
MIN_FILTER_SIGMA = 0.55
"""Least width of a filter in pixels of the binned image, below which its samples no longer add up to a difference
of Gaussians."""
NOISE_SAMPLES = 4_000
"""Pixels of the filtered image from which its noise is measured: 4,000 independent ones give it to 2 %."""
ROUNDING_NOISE = 1 / math.sqrt(12)
"""Standard deviation of rounding to whole grey values."""
SAME_PARTICLE = 2.0
"""Widths of a stronger candidate within which another one is a part of it; two particles nearer than that are
found in the residual image."""
PIXEL_NOISE_SAMPLES = 20_000
"""2 x 2 blocks from which the noise of single pixels is measured, to 0.5 %."""
PARTICLE_RADIUS = 3.0
"""Widths around a candidate that are left out of the distribution of the noise."""
COARSE_ROUNDS = 3
"""Rounds in which it is measured again without the candidates that were noise."""


@dataclass(frozen=True, slots=True)
class Template:
    """One filter of the bank: the Gaussian widths, in pixels, of the image that it answers best."""

    sigma_x_px: float
    sigma_y_px: float

    @property
    def binning(self) -> int:
        """The power of two by which the image is binned before this filter, after its mean width."""
        mean_px = float(np.sqrt(self.sigma_x_px * self.sigma_y_px))
        return int(min(MAX_BINNING, 2 ** max(0, np.floor(np.log2(1.2 * mean_px)))))


@dataclass(frozen=True, slots=True)
class _Filter:
    template: Template
    level: int
    kernels: tuple[Float32Array, Float32Array, Float32Array, Float32Array]

    def area_px(self, binning: int) -> float:
        """Product of the filter's own widths, in pixels."""
        least_px = MIN_FILTER_SIGMA * binning
        return max(least_px, self.template.sigma_x_px) * max(least_px, self.template.sigma_y_px)

    def gain(self, binning: int) -> float:
        """The standard deviation of the response to independent pixel noise of one."""
        kx, ky, wx, wy = (np.concatenate([half[:0:-1], half]) for half in self.kernels)
        near_x, near_y = (
            wx[wx.size // 2 - kx.size // 2 :][: kx.size],
            wy[wy.size // 2 - ky.size // 2 :][: ky.size],
        )
        squared = (kx @ kx) * (ky @ ky) + (wx @ wx) * (wy @ wy) - 2 * (kx @ near_x) * (ky @ near_y)
        return math.sqrt(squared) / binning

    def weights(self, binning: int) -> tuple[FloatArray, FloatArray]:
        """The weights (W,) of single pixels in the response, and how many pixels (W,) have each."""
        kx, ky, wx, wy = (half.astype(np.float64) for half in self.kernels)
        whole = -np.outer(wy, wx)
        whole[: ky.size, : kx.size] += np.outer(ky, kx)
        along_x, along_y = (np.where(np.arange(half.size) == 0, 1.0, 2.0) for half in (wx, wy))
        counts = np.outer(along_y, along_x) * binning**2
        return whole.ravel() / binning**2, counts.ravel()


def false_alarm_threshold(filter_areas: float) -> float:
    """Return the threshold, in noise sigmas, that noise alone passes in one frame out of ten.

    `filter_areas` is the image's area in units of sx sy, summed over the filters. A filtered image of noise
    is a Gaussian field; per unit of area it has (2 pi)^(-3/2) sqrt(lx ly) t exp(-t^2/2) maxima above t
    (Adler, The Geometry of Random Fields, 1981), with lx = `ROUGHNESS` / sx^2 the variance of its slope.
    """

    def excess(threshold: float) -> float:
        maxima = filter_areas * ROUGHNESS * (2 * math.pi) ** -1.5 * threshold
        return math.log(maxima / FALSE_ALARMS_PER_FRAME) - 0.5 * threshold**2

    return brentq(excess, 1.0, 12.0) if excess(1.0) > 0 else 1.0


class SpotFilter:
    """The filter bank for images of one size; owns every buffer it needs.

    `pixel_sigma` is the standard deviation of the last image's noise where that is far from normal
    (`engines.classical.coarse_noise`), else 0.

    `rounding_noise` is the least standard deviation of a pixel, that of rounding to whole grey values: images
    whose background is constant have a noise after all.

    `threshold` is in standard deviations of each filtered image (from the median absolute deviation); None
    chooses it by `false_alarm_threshold`.
    """

    def __init__(
        self,
        height: int,
        width: int,
        templates: Sequence[Template],
        threshold: float | None = None,
        rounding_noise: float = ROUNDING_NOISE,
    ) -> None:
        self.templates = tuple(templates)
        binnings = sorted({template.binning for template in templates})
        self._levels = [b for b in binnings if height // b >= 3 and width // b >= 3] or [1]
        self._images = [np.empty((height // b, width // b), np.float32) for b in self._levels]
        self._filters = [self._plan(template) for template in templates]
        largest = self._images[0].shape
        self._rows = [np.empty(largest, np.float32) for _ in range(2)]
        self._response = np.empty(largest, np.float32)
        self._noise = np.zeros(len(templates))
        self._rounding_noise = rounding_noise
        self.pixel_sigma = 0.0
        self._least_noise = [rounding_noise * bank.gain(self._levels[bank.level]) for bank in self._filters]
        self._found = np.empty((4, max(1024, largest[0] * largest[1] // 8)))
        areas = sum(height * width / bank.area_px(self._levels[bank.level]) for bank in self._filters)
        self.threshold = false_alarm_threshold(areas) if threshold is None else threshold

    def _plan(self, template: Template) -> _Filter:
        level = min(range(len(self._levels)), key=lambda i: abs(self._levels[i] - template.binning))
        binning = self._levels[level]
        sigma_x = max(MIN_FILTER_SIGMA, template.sigma_x_px / binning)
        sigma_y = max(MIN_FILTER_SIGMA, template.sigma_y_px / binning)
        return _Filter(
            template,
            level,
            (
                gaussian_kernel(sigma_x),
                gaussian_kernel(sigma_y),
                gaussian_kernel(SURROUND * sigma_x),
                gaussian_kernel(SURROUND * sigma_y),
            ),
        )

    def candidates(self, image: Float32Array, sign: float, *, same_noise: bool = False) -> FloatArray:
        """Return candidates, strongest first, shape (4, N): x, y (px), template number, significance.

        `image` is (H, W) float32; `sign` is +1 for bright particles and -1 for dark ones. One particle gives
        one candidate: weaker maxima within `SAME_PARTICLE` widths of a stronger one are left out.
        `same_noise` keeps the noise found in the image before, of which this one is the remainder.
        """
        for level, binning in enumerate(self._levels):
            bin_image(image, binning, self._images[level])
        count = 0
        for number, bank in enumerate(self._filters):
            binned = self._images[bank.level]
            height, width = binned.shape
            response = self._response[:height, :width]
            narrow, wide = (rows[:height, :width] for rows in self._rows)
            difference_of_gaussians(binned, *bank.kernels, narrow, wide, response)
            if not same_noise:
                spread = robust_sigma(response, max(1, response.size // NOISE_SAMPLES))
                self._noise[number] = max(spread, self._least_noise[number])
            count = local_maxima(
                response,
                sign,
                self._noise[number],
                self.threshold,
                self._levels[bank.level],
                number,
                self._found,
                count,
            )
        found = self._found[:, :count]
        if not same_noise:
            found = self._without_coarse_noise(image, sign, found)
        found = np.ascontiguousarray(found[:, np.argsort(-found[3], kind="stable")])
        shapes = np.array([(t.sigma_x_px, t.sigma_y_px) for t in self.templates])
        keep = strongest_only(found, shapes, SAME_PARTICLE)
        return np.ascontiguousarray(found[:, keep])

    def _without_coarse_noise(self, image: Float32Array, sign: float, found: FloatArray) -> FloatArray:
        """The maxima (4, N) that noise far from normal does not explain either; sets the noise levels to it."""
        self.pixel_sigma = 0.0
        sigma = max(self._rounding_noise, pixel_noise(image, max(1, image.size // 4 // PIXEL_NOISE_SAMPLES)))
        if not is_coarse(image, sigma):
            return found
        radii = PARTICLE_RADIUS * np.array([max(t.sigma_x_px, t.sigma_y_px) for t in self.templates])
        for _ in range(COARSE_ROUNDS):
            number = found[2].astype(np.int64)
            particles = np.stack([found[0], found[1], radii[number]])
            noise = noise_of(image, particles, sigma, self._rounding_noise / ROUNDING_NOISE)
            if noise is None:
                break
            self.pixel_sigma = noise.sigma
            signed = noise if sign > 0 else noise.mirrored()
            before = self._noise.copy()
            for n, bank in enumerate(self._filters):
                level = level_as_rare(signed, *bank.weights(self._levels[bank.level]), self.threshold)
                self._noise[n] = max(before[n], level / self.threshold)
            significance = found[3] * before[number] / self._noise[number]
            passes = significance >= self.threshold
            found = np.vstack([found[:3], significance])[:, passes]
            if passes.all():
                break
        return found
