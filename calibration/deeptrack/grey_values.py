"""Images of a pipeline, which have any unit, as the grey values of a camera."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BACKGROUND_PART, BRIGHTEST_PART = 0.5, 0.9
"""Of the full scale, for the median and the largest value of the first image: which comes first sets the gain."""


def gain_for(image: FloatArray, offset: float, full_scale: float) -> float:
    """Grey values for each unit of a pipeline's image, so that the image is neither dark nor clipped."""
    middle, largest = float(np.median(np.abs(image))), float(np.abs(image).max())
    limits = [
        (part * full_scale - offset) / value
        for part, value in ((BACKGROUND_PART, middle), (BRIGHTEST_PART, largest))
        if value > 0
    ]
    return max(min(limits, default=1.0), np.finfo(float).tiny)


def as_grey(image: FloatArray, gain: float, offset: float, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """`offset + gain * image` rounded and clipped to whole numbers of the type."""
    grey: npt.NDArray[Any] = np.clip(np.rint(offset + gain * image), 0, np.iinfo(dtype).max).astype(dtype)
    return grey
