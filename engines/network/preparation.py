"""Preparation of camera images for the network: contrast against the background, in units of the noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from engines.blocks import BLOCK_PX
from engines.flatfield import FlatField
from engines.network.model_card import ModelCard, Normalisation
from engines.pixel_noise import pixel_noise

Float32Array = npt.NDArray[np.float32]

SAMPLED_ROWS = 400
"""Rows of an image for its median, evenly spread: that of 1 million pixels is good to 0.1 % of the noise."""
LEAST_LIGHT = 1.0
"""Grey values of background below which a frame has no light and no contrast."""
LEVELS_OF_LIGHT = 1 << 15
"""Bins of the histogram for the median, per unit of the bright reference's light; it covers twice that light."""


LEAST_NOISE = 0.3
"""Grey values: standard deviation of rounding to whole ones, 1 / sqrt(12)."""
LEAST_NOISE_OF_RANGE = 2e-3
"""Of the range of an image's values: its noise is taken as this at least, half a grey value of 8 bits; as networks
are trained, which may never have seen noise."""
ODD_PIXELS, LEAST_ODD = 5e-4, 3
"""Part of the pixels, and how many at least, at each end of that range that may be hot or dead ones, or a bright
speck of dirt (500 pixels of a megapixel), which must not take the contrast from all others. With a larger part the
objects themselves would not count where there are few of them."""
NOISE_SQUARES = 32_768
"""Squares of 2 x 2 pixels from which the noise is measured: to 0.4 %."""


def noise_of(image: Float32Array) -> float:
    """The standard deviation of the noise of single pixels, whatever the image shows."""
    squares = (image.shape[0] // 2) * (image.shape[1] // 2)
    return float(pixel_noise(image, max(1, squares // NOISE_SQUARES)))


def padded(size_px: int) -> int:
    """The next multiple of what the network needs."""
    return -(-size_px // BLOCK_PX) * BLOCK_PX


class Preparation:
    """Fills the input (1, 1, H', W') from images (H, W), H' and W' padded with zeros; belongs to one thread.

    `sign` is -1 where particles are dark. The background is the image's median, which is exact as long as the
    illumination is even or flat-field references are given. Contrast is relative to it, or, with the
    `normalisation` "noise", to the noise of the image.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        sign: float,
        noise_contrast: float,
        flat_field: FlatField | None,
        normalisation: Normalisation = "background",
    ) -> None:
        height, width = shape
        self.input: Float32Array = np.zeros((1, 1, padded(height), padded(width)), np.float32)
        self._scale = sign / noise_contrast
        self._by_noise = normalisation == "noise"
        self._flat_field = flat_field
        self._step = max(1, height // SAMPLED_ROWS)
        self._counts = np.zeros(1 << 16, np.int64)
        self._corrected = np.empty(shape if flat_field is not None else (0, 0), np.float32)

    @classmethod
    def of(cls, card: ModelCard, shape: tuple[int, int], flat_field: FlatField | None) -> Preparation:
        """The preparation that the network of a card needs."""
        return cls(shape, card.sign, card.noise_contrast, flat_field, card.normalisation)

    @property
    def corrected(self) -> Float32Array:
        """The image that was last filled, as `FlatField.correct` gave it; empty without a flat field."""
        return self._corrected

    def fill(self, image: npt.NDArray[Any]) -> float:
        """Prepare a uint8 or uint16 image; returns what contrasts are relative to, in grey values.

        That is its background, or its noise; 0 where there is no light.
        """
        out = self.input[0, 0]
        if self._by_noise:
            return self._fill_by_noise(image, out)
        if self._flat_field is not None:
            flat_field = self._flat_field
            flat_field.check(image.shape)
            light = self._light(image, flat_field)
            if light <= LEAST_LIGHT / flat_field.grey_values:
                return 0.0
            _correct_and_scale(
                image, flat_field.dark, flat_field.factor, light, self._scale, self._corrected, out
            )
            return float(light * flat_field.grey_values)
        background = float(_median(image, self._step, self._counts))
        if background < LEAST_LIGHT:
            return 0.0
        _scale(image, background, self._scale, out)
        return background

    def _fill_by_noise(self, image: npt.NDArray[Any], out: Float32Array) -> float:
        height, width = image.shape
        seen, grey_values = image.astype(np.float32), 1.0
        if self._flat_field is not None:
            self._flat_field.correct(image, self._corrected)
            seen, grey_values = 1.0 - self._corrected, self._flat_field.grey_values
        rows = seen[:: self._step]
        background = float(np.median(rows))
        noise = noise_of(seen) if self._flat_field is not None else max(noise_of(seen), LEAST_NOISE)
        whole = float(np.ptp(rows))
        if noise < LEAST_NOISE_OF_RANGE * whole:  # seldom: the range without odd pixels takes long
            odd = min(max(LEAST_ODD, int(ODD_PIXELS * rows.size)), (rows.size - 1) // 2)
            low, high = np.partition(rows, [odd, rows.size - 1 - odd], axis=None)[[odd, -1 - odd]]
            noise = max(noise, LEAST_NOISE_OF_RANGE * float(high - low))
        if not float(rows.max()) > background or noise <= 0:
            return 0.0
        np.multiply(seen - np.float32(background), np.float32(self._scale / noise), out=out[:height, :width])
        return noise * grey_values

    def _light(self, image: npt.NDArray[Any], flat_field: FlatField) -> float:
        """The median of the relative brightness."""
        dark, factor, step = flat_field.dark, flat_field.factor, self._step
        light = float(_median_relative(image, dark, factor, step, LEVELS_OF_LIGHT, self._counts))
        if light * LEVELS_OF_LIGHT < self._counts.size - 1:
            return light
        return float(np.median((image[::step] - dark[::step]) * factor[::step]))


@njit(cache=True, nogil=True)
def _median(image: Any, step: int, counts: Any) -> float:
    """The median of whole numbers, between two of them as their counts say."""
    counts[:] = 0
    total = 0
    for row in range(0, image.shape[0], step):
        for column in range(image.shape[1]):
            counts[image[row, column]] += 1
        total += image.shape[1]
    below, half = 0.0, 0.5 * total
    for value in range(counts.size):
        if below + counts[value] >= half:
            return float(value - 0.5 + (half - below) / counts[value])
        below += counts[value]
    return 0.0


@njit(cache=True, nogil=True, fastmath=True)
def _scale(image: Any, background: float, scale: float, out: Any) -> None:
    factor, offset = np.float32(scale / background), np.float32(scale)
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            out[row, column] = np.float32(image[row, column]) * factor - offset


@njit(cache=True, nogil=True)
def _median_relative(image: Any, dark: Any, factor: Any, step: int, levels: float, counts: Any) -> float:
    """The median of the relative brightness, to a small part of a level; the last level is all that is brighter."""
    counts[:] = 0
    total, last = 0, counts.size - 1
    per_light = np.float32(levels)
    for row in range(0, image.shape[0], step):
        for column in range(image.shape[1]):
            relative = (np.float32(image[row, column]) - dark[row, column]) * factor[row, column]
            level = np.int64(relative * per_light)
            counts[min(max(level, 0), last)] += 1
        total += image.shape[1]
    below, half = 0.0, 0.5 * total
    for value in range(counts.size):
        if below + counts[value] >= half:
            return float((value + (half - below) / counts[value]) / levels)
        below += counts[value]
    return 0.0


@njit(cache=True, nogil=True, fastmath=True)
def _correct_and_scale(
    image: Any, dark: Any, factor: Any, light: float, scale: float, corrected: Any, out: Any
) -> None:
    """What `FlatField.correct` does, and the network's input, in one go."""
    by, offset, one = np.float32(scale / light), np.float32(scale), np.float32(1.0)
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            relative = (np.float32(image[row, column]) - dark[row, column]) * factor[row, column]
            corrected[row, column] = one - relative
            out[row, column] = relative * by - offset
