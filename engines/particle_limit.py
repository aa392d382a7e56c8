"""Limit on the particles per frame: the brightest are kept, the others counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stream.messages import Detections

BRIGHTNESS = Detections.COLUMNS.index("brightness")


def strongest(table: npt.NDArray[Any], most: int) -> tuple[npt.NDArray[Any], int]:
    """The `most` brightest of a table (columns, N), in their original order, and how many are left out."""
    excess = table.shape[1] - most
    if excess <= 0:
        return table, 0
    kept = np.sort(np.argsort(-np.nan_to_num(table[BRIGHTNESS], nan=-np.inf), kind="stable")[:most])
    return np.ascontiguousarray(table[:, kept]), excess
