"""Whether particles leave so little background that it must be looked for between them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.volumes.surroundings.cells import BLOCK

FloatArray = npt.NDArray[np.float64]

LOOKED_AT = 6
"""Slices that are looked at, evenly over the stack."""
OF_SLICES = 0.7
"""Quantile of the slices that decides: particles that have settled fill a part of a stack."""
LAG_SIGMAS = 2.0
"""Distance of the compared blocks in standard deviations of a spot: its flank lies between them."""
CROWDED = 3.0
"""How much more blocks differ, by their median, than noise makes them, in a crowded volume. Where less than a third
of all blocks touch a particle the median is that of the background; half of them at the contrast of a
particle make it 3 and more."""
HALF_NORMAL = 0.6745


def is_crowded(
    image: npt.NDArray[Any], missing: npt.NDArray[np.bool_], sigma_px: float, block: int = BLOCK
) -> bool:
    """Whether most of many slices of a volume (Z, H, W) has structure of the size of a spot, `sigma_px`, beyond the
    noise.

    From second differences of the means of blocks along both axes of the plane, so that light that changes slowly
    does not count. `block` is the edge of a block, px.
    """
    have = np.flatnonzero(~missing)
    chosen = have[np.linspace(0, have.size - 1, min(LOOKED_AT, have.size)).astype(int)]
    lag = max(1, round(LAG_SIGMAS * sigma_px / block))
    rows, columns = image.shape[1] // block, image.shape[2] // block
    if min(rows, columns) <= 2 * lag:
        return False
    seen = image[chosen, : rows * block, : columns * block].astype(np.float32)
    blocks = seen.reshape(len(chosen), rows, block, columns, block).mean(axis=(2, 4), dtype=np.float64)
    cross = seen[:, ::2, ::2] - seen[:, 1::2, ::2] - seen[:, ::2, 1::2] + seen[:, 1::2, 1::2]
    noise = np.median(np.abs(cross), axis=(1, 2)) / HALF_NORMAL / 2 / block
    count = len(chosen)
    bent = np.concatenate(
        [
            (blocks[:, 2 * lag :] - 2 * blocks[:, lag:-lag] + blocks[:, : -2 * lag]).reshape(count, -1),
            (blocks[..., 2 * lag :] - 2 * blocks[..., lag:-lag] + blocks[..., : -2 * lag]).reshape(count, -1),
        ],
        axis=1,
    )
    found = np.median(np.abs(bent), axis=1) / HALF_NORMAL
    least = math.sqrt(1 / 12) / block
    return bool(np.quantile(found / np.maximum(noise, least), OF_SLICES) > CROWDED * math.sqrt(6))
