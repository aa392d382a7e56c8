"""Limit on the particles per frame: the brightest are kept, the others counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stream.messages import Detections

BRIGHTNESS = Detections.COLUMNS.index("brightness")


def strongest(table: npt.NDArray[Any], most: int) -> tuple[npt.NDArray[Any], int]:
    """The `most` brightest of a table (columns, N), in their original order, and how many are left out."""
    kept, excess = strongest_of(table, most)
    return (np.ascontiguousarray(table[:, kept]), excess) if excess else (table, 0)


def strongest_of(table: npt.NDArray[Any], most: int) -> tuple[npt.NDArray[np.intp], int]:
    """The places of the `most` brightest of a table (columns, N), in their order, and how many are left out."""
    excess = max(0, table.shape[1] - most)
    if not excess:
        return np.arange(table.shape[1]), 0
    return np.sort(np.argsort(-np.nan_to_num(table[BRIGHTNESS], nan=-np.inf), kind="stable")[:most]), excess
