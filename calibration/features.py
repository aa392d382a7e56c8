"""Features of particle images over depth: masked signal and local variance (Franchini & Krevor 2020, Fig. 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SIGNAL_PART = 0.15
"""Part of the largest mean contrast above which a pixel belongs to the signal's mask. For curves only; labels do
not depend on it."""


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """Pixels (P, P) of the signal, at most of the depths, and of the background, at all depths (Fig. 3)."""

    signal: BoolArray
    background: BoolArray


def make_masks(images: npt.NDArray[np.floating]) -> Masks:
    """The masks, from images of the PSF (J, P, P)."""
    size = np.abs(images)
    mean = size.mean(axis=0)
    largest = (size / size.max(axis=(1, 2), keepdims=True)).max(axis=0)
    signal = mean > SIGNAL_PART * mean.max()
    background = largest < np.quantile(largest, 0.3)
    return Masks(signal, background & ~signal)


def masked_signal(images: npt.NDArray[np.floating], masks: Masks) -> FloatArray:
    """Mean contrast (...) within the signal's mask less that in the background's, of images (..., P, P)."""
    signal = images[..., masks.signal].mean(axis=-1, dtype=np.float64)
    return np.asarray(signal - images[..., masks.background].mean(axis=-1, dtype=np.float64))


def local_variance(images: npt.NDArray[np.floating], noise_variance: float = 0.0) -> FloatArray:
    """Variance (...) of the contrast in images (..., P, P), less that of the noise."""
    return np.asarray(images.var(axis=(-2, -1), dtype=np.float64) - noise_variance)


def background_variance(images: npt.NDArray[np.floating], masks: Masks) -> FloatArray:
    """Variance (...) in the background's mask of images (..., P, P): high where something else is visible."""
    return np.asarray(images[..., masks.background].var(axis=-1, dtype=np.float64))
