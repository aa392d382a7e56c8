"""Signs that a back end's answer cannot be right, in what it answered and in what was looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from engines.network.layout import CHANNELS, LOGIT, STRIDE

SURE_SIGMAS = 7.0
APART_CELLS = 2
SIGMA_OF_MAD = 1.4826


def fault_of(maps: npt.NDArray[np.float32]) -> str:
    """What is wrong with a network's answer to one image (planes, or maps as `decode.slots_of` reads); "" if sound.

    Probabilities that are no numbers, or the same in every cell, which no image gives: all zeros, for one.
    """
    logits = maps[LOGIT::CHANNELS] if maps.ndim == 3 else np.moveaxis(maps[..., LOGIT], -1, 0)
    finite, differ = _survey(logits)
    if not finite:
        return "values that are no numbers"
    return "" if differ else "the same value everywhere"


@njit(cache=True, nogil=True)
def _survey(planes: Any) -> tuple[bool, bool]:
    """Whether all values are finite, and whether any two of one plane differ."""
    largest = np.float32(np.inf)
    differing, wrong = 0, 0
    for n in range(planes.shape[0]):
        plane = planes[n]
        first = plane[0, 0]
        for row in range(plane.shape[0]):
            for column in range(plane.shape[1]):
                value = plane[row, column]
                differing += value != first
                wrong += not abs(value) < largest
    return wrong == 0, differing > 0 or planes[0].size == 1


def has_structure(image: npt.NDArray[Any]) -> bool:
    """Whether an image (H, W) shows anything but noise and slow shading.

    That is means of cells 8 pixels apart that differ by seven standard deviations of such differences.
    """
    height, width = (size // STRIDE * STRIDE for size in image.shape)
    if not height or not width:
        return False
    cells = image[:height, :width].reshape(height // STRIDE, STRIDE, width // STRIDE, STRIDE)
    means = cells.mean(axis=(1, 3), dtype=np.float32)
    for axis in (0, 1):
        lines = np.moveaxis(means, axis, 0)
        steps = lines[APART_CELLS:] - lines[:-APART_CELLS]
        if steps.size:
            steps = np.abs(steps - np.median(steps))
            if steps.max() > SURE_SIGMAS * max(SIGMA_OF_MAD * float(np.median(steps)), 1.0 / STRIDE**2):
                return True
    return False
