"""Contrast of a pipeline's image as the network gets it, and the objects' peaks in it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from engines.network.model_card import Normalisation
from engines.network.preparation import LEAST_NOISE_OF_RANGE, noise_of

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
SMOOTHED_PX = 3


def contrast_of(image: FloatArray, normalisation: Normalisation, sign: float) -> Float32Array:
    """The contrast (H, W) of an image: to its median, in units of that or of its noise."""
    background = background_of(image)
    scale = background
    if normalisation == "noise":
        least = LEAST_NOISE_OF_RANGE * float(np.ptp(image))
        scale = max(noise_of(image.astype(np.float32)), least) or 1.0
    return ((image - background) * (sign / scale)).astype(np.float32)


def background_of(image: FloatArray) -> float:
    """The median of an image; of whole numbers, such as few photons, between two of them as their counts say.

    As `engines.network.preparation` has it for the camera's images.
    """
    middle = float(np.median(image))
    if not (np.rint(image) == image).all():
        return middle
    below, at = float((image < middle).mean()), float((image == middle).mean())
    return middle if at == 0 else middle - 0.5 + (0.5 - below) / at


def peaks_of(contrast: Float32Array, x_px: FloatArray, y_px: FloatArray, reach_px: int) -> FloatArray:
    """The largest contrast (N,), without its sign, within `reach_px` of places; 3 x 3 pixels are averaged."""
    smooth = np.abs(uniform_filter(contrast, SMOOTHED_PX, mode="nearest"))
    height, width = smooth.shape
    peaks = np.empty(x_px.size)
    columns = np.clip(np.rint(x_px).astype(int), 0, width - 1)
    rows = np.clip(np.rint(y_px).astype(int), 0, height - 1)
    for n, (x, y) in enumerate(zip(columns.tolist(), rows.tolist(), strict=True)):
        part = smooth[
            max(y - reach_px, 0) : y + reach_px + 1,
            max(x - reach_px, 0) : x + reach_px + 1,
        ]
        peaks[n] = part.max()
    return peaks
