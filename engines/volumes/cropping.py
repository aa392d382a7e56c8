"""The part of a volume that shows most particles: enough to look at once, before the whole of it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

STEP = 4
"""Every so many rows and columns are looked at."""
FARTHEST = 0.02
"""Share of a part's voxels whose mean is compared: that of its particles, where there are any."""


def liveliest_part(
    image: npt.NDArray[Any], missing: npt.NDArray[np.bool_], most: tuple[int, int, int]
) -> tuple[slice, slice, slice]:
    """The part of a volume (Z, H, W), `most` voxels at most along each axis, whose voxels differ most from their
    slice.

    From its median, in either direction, so that dark and bright particles are looked for at one place; parts lie
    side by side, the last ones overlapping those before.
    """
    starts = [_starts(size, edge) for size, edge in zip(image.shape, most, strict=True)]
    if all(len(part) == 1 for part in starts):
        return slice(None), slice(None), slice(None)
    seen = image[:, ::STEP, ::STEP].astype(np.float32)
    seen = np.abs(seen - np.median(seen, axis=(1, 2), keepdims=True))
    seen[missing] = 0
    best, chosen = -np.inf, (0, 0, 0)
    for z in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                part = seen[
                    z : z + most[0],
                    y // STEP : (y + most[1]) // STEP,
                    x // STEP : (x + most[2]) // STEP,
                ].ravel()
                count = max(1, int(FARTHEST * part.size))
                level = float(np.partition(part, part.size - count)[-count:].mean())
                if level > best:
                    best, chosen = level, (z, y, x)
    (z, y, x), (deep, tall, wide) = chosen, most
    return slice(z, z + deep), slice(y, y + tall), slice(x, x + wide)


def _starts(size: int, edge: int) -> list[int]:
    """Where parts of `edge` begin that cover `size`."""
    count = -(-size // edge)
    return [int(start) for start in np.unique(np.linspace(0, max(size - edge, 0), count).astype(int))]
