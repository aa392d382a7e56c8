"""Checks for network outputs that cannot be right, whichever back end ran it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from engines.network.layout import CHANNELS, LOGIT, SLOTS


def fault_of(maps: npt.NDArray[np.float32]) -> str:
    """What is wrong with a network's output for one image (as `decode.slots_of` reads it); "" if sound.

    Checked are probabilities that are not finite, or the same in every cell (all zeros, say), as no image gives.
    """
    logits = (
        maps[LOGIT : SLOTS * CHANNELS : CHANNELS] if maps.ndim == 3 else np.moveaxis(maps[..., LOGIT], -1, 0)
    )
    finite, differ = _survey(logits)
    if not finite:
        return "values that are not finite numbers"
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
