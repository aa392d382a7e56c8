"""The network on parts of a frame: within a rectangle its answer is that of the whole frame.

A convolution of size 3 sees one cell to each side; with the cells of the U-Net (`architecture`), at a quarter, an
eighth and a sixteenth of the resolution, the answer at a pixel depends on pixels up to

    4 F + 8 M + 16 C    (1)

away, F, M and C blocks on the three levels, from the edge of its block of 16 x 16 px on. With a margin of (1) and a
block more a part is exact, wherever it lies on a grid of 16 px. What is far away hardly counts, though.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from engines.blocks import BLOCK_PX
from engines.network.decode import slots_of
from engines.network.layout import BLOCKS, CHANNELS, LOGIT, SLOTS, STRIDE
from engines.network.preparation import padded
from engines.prediction.tiles import Rectangle

Float32Array = npt.NDArray[np.float32]
PART_READ = 2
"""Half of the reach is read: with 2 of 4 blocks of the small network positions differ by 0.1 standard errors of the
network at most, before the fit, and none of 151 particles is lost; with 1 by 1.2. Tiles take half the time."""
NO_PARTICLE = -1e3
"""Logit of a probability of 0."""


def reach_blocks(size: str) -> int:
    """Blocks of 16 px around a rectangle on which a network's answer within it depends."""
    fine, middle, coarse = BLOCKS[size]
    return -(-(4 * fine + 8 * middle + 16 * coarse) // BLOCK_PX) + 1


def margin_blocks(size: str) -> int | None:
    """Blocks of 16 px that are read around a rectangle; None for a network of unknown size."""
    return reach_blocks(size) // PART_READ if size in BLOCKS else None


def origin_px(field: tuple[int, int] | None, image: tuple[int, ...]) -> tuple[float, float]:
    """Where the first pixel of an image of (H, W), padded, lies in a network's `field` (H, W): x and y, px.

    Images as large as the field, once padded, cover it; others have the same middle. A network without a field does
    not mind. `field_ramps` has the same rule for a network that is not told.
    """
    if field is None:
        return 0.0, 0.0
    down, across = (
        0.0 if seen == padded(size) else 0.5 * (size - seen) for size, seen in zip(field, image, strict=True)
    )
    return across, down


def slots_in(
    run: Callable[[Float32Array, tuple[int, int]], Float32Array],
    given: Float32Array,
    rectangles: Sequence[Rectangle],
    reach: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], int]:
    """Slots as `decode.slots_of` gives them of what lies in any of the `rectangles` of blocks, each once.

    `given` (1, 1, H, W) is the input for the whole frame. `run` maps a part of it, and where the part's first pixel
    lies in it (x and y, px), to planes. Also returns which blocks (H/16, W/16) they cover, and how many pixels were
    read.
    """
    tall, wide = (side // BLOCK_PX for side in given.shape[2:])
    read = np.zeros((tall, wide), np.bool_)
    found, pixels = [], 0
    per = BLOCK_PX // STRIDE
    for part in rectangles:
        top, bottom = max(part.top - reach, 0), min(part.bottom + reach, tall)
        left, right = max(part.left - reach, 0), min(part.right + reach, wide)
        rows, columns = slice(top * BLOCK_PX, bottom * BLOCK_PX), slice(left * BLOCK_PX, right * BLOCK_PX)
        tile = np.ascontiguousarray(given[:, :, rows, columns])
        pixels += tile.size
        planes = np.ascontiguousarray(
            run(tile, (left * BLOCK_PX, top * BLOCK_PX))[
                :,
                (part.top - top) * per : (part.bottom - top) * per,
                (part.left - left) * per : (part.right - left) * per,
            ]
        )
        mine = read[part.top : part.bottom, part.left : part.right]
        if mine.any():
            planes = planes.copy()
            twice = mine.repeat(per, axis=0).repeat(per, axis=1)
            planes[LOGIT : SLOTS * CHANNELS : CHANNELS, twice] = NO_PARTICLE
        mine[:] = True
        slots = slots_of(planes)
        slots[:, 0] += part.left * BLOCK_PX
        slots[:, 1] += part.top * BLOCK_PX
        found.append(slots)
    width = 0 if not found else found[0].shape[1]
    return np.concatenate(found) if found else np.empty((0, max(width, 8))), read, pixels
