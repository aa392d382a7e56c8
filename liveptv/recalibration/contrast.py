"""The images of a run as the fit sees them: contrast, and its noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.recalibration.model_file import ModelFile
from engines.flatfield import FlatField
from engines.pixel_noise import pixel_noise

Float32Array = npt.NDArray[np.float32]

MEDIAN_STRIDE = 7
"""Every so many-th row and column is used for the median of an image, as by the fit."""
NOISE_SAMPLES = 20_000
"""Differences of 2 x 2 pixels that the noise is measured on: good to 0.5 %."""


class Contrasts:
    """Makes contrasts of images for a model."""

    def __init__(self, model: ModelFile, flat: FlatField | None) -> None:
        self._flat = flat
        self._sign = -1.0 if model.psf.polarity == "dark" else 1.0
        self._noise = model.noise

    def __call__(self, image: npt.NDArray[Any]) -> tuple[Float32Array, float, float] | None:
        """Contrast (H, W) of an image, and its noise `read` and `shot`; None without light."""
        contrast = self._contrast(image)
        if contrast is None:
            return None
        level = pixel_noise(contrast, max(1, contrast.size // 4 // NOISE_SAMPLES)) ** 2
        read, shot = (part * level / sum(self._noise) for part in self._noise)
        return contrast, read, shot

    def _contrast(self, image: npt.NDArray[Any]) -> Float32Array | None:
        """The contrast, positive at particles."""
        if self._flat is None:
            relative = image.astype(np.float32)
        else:
            corrected = np.empty(image.shape, np.float32)
            self._flat.correct(image, corrected)
            relative = 1 - corrected
        background = float(np.median(relative[::MEDIAN_STRIDE, ::MEDIAN_STRIDE]))
        if not background > 0:
            return None
        return np.asarray(np.float32(self._sign) * (relative / np.float32(background) - 1), np.float32)
