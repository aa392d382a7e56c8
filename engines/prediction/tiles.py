"""Which parts of a frame the network reads: rectangles around what is left over, and a piece of the frame in turn.

The network's answer depends on the pixels within its reach, so each rectangle is read with a margin. Within the
rectangle it is then the same as of the whole frame; particles whose probability is split over the rectangle's edge
are left to whoever reads the other side, so only what is `RIM_PX` inside counts, except at the frame's edges.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from engines.blocks import BLOCK_PX
from engines.refine.arguments import BoolArray, FloatArray

RIM, RIM_PX = 1, 10.0
"""Blocks around what is wanted that a rectangle has as well, and px inside its edge from which particles count:
over so many px the decoder merges."""
EVERY = 64
"""Frames in which the whole frame is read once, piece by piece: 2.7 s at 24 frames/s. By the pixels read, 3 % of a
frame each time, with 32 5 %; in four simulated flows (190 frames) 32 found nothing that 64 did not."""
MOST_READ = 1.0
"""Part of a frame's pixels beyond which the network reads all of it at once. A pixel takes as long in parts of
144 x 144 px as in a frame of 1440 x 2560, 35 and 39 ns."""


class Rectangle(NamedTuple):
    """First and last (exclusive) row and column of blocks."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def pixels(self) -> int:
        """How many."""
        return (self.bottom - self.top) * (self.right - self.left)


def pieces(shape: tuple[int, int], every: int = EVERY) -> tuple[int, int]:
    """Rows and columns of the grid of `every` pieces that a frame of `shape` (H, W) is cut into, the squarest."""
    height, width = shape
    sides = [(rows, every // rows) for rows in range(1, every + 1) if every % rows == 0]
    return min(sides, key=lambda s: abs(math.log((height / s[0]) / (width / s[1]))))


def piece(frame: int, blocks: tuple[int, int], every: int = EVERY) -> BoolArray:
    """Blocks (h, w) of the piece that is read in a frame of this number.

    Pieces that follow each other are far apart, so that no particle moves along with them.
    """
    rows, columns = pieces(blocks, every)
    number = (frame * _stride(every)) % every
    row, column = divmod(number, columns)
    out = np.zeros(blocks, np.bool_)
    top, bottom = (round(part * blocks[0] / rows) for part in (row, row + 1))
    left, right = (round(part * blocks[1] / columns) for part in (column, column + 1))
    out[top:bottom, left:right] = True
    return out


def _stride(every: int) -> int:
    """A step through the pieces that meets each one: near the golden section, prime to their number."""
    wanted = round(0.382 * every)
    return next((s for s in range(max(wanted, 1), every) if math.gcd(s, every) == 1), 1)


def rectangles(wanted: BoolArray, reach: int) -> list[Rectangle]:
    """Rectangles of blocks whose inside, a `RIM` from their edges, covers the `wanted` blocks (h, w).

    Near ones are joined where that takes fewer pixels, read with a margin of `reach` blocks.
    """
    joined, _ = ndimage.label(wanted, np.ones((3, 3), np.int64))
    boxes = [
        (rows.start, rows.stop, columns.start, columns.stop) for rows, columns in ndimage.find_objects(joined)
    ]
    by = RIM + reach
    cost = [_grown(box, by, wanted.shape).pixels for box in boxes]
    changed = True
    while changed:
        changed = False
        for a in range(len(boxes)):
            for b in range(len(boxes) - 1, a, -1):
                one, other = boxes[a], boxes[b]
                if max(one[0], other[0]) - min(one[1], other[1]) > 2 * by:
                    continue  # what is read of them has nothing in common
                if max(one[2], other[2]) - min(one[3], other[3]) > 2 * by:
                    continue
                both = (
                    min(one[0], other[0]),
                    max(one[1], other[1]),
                    min(one[2], other[2]),
                    max(one[3], other[3]),
                )
                joint = _grown(both, by, wanted.shape).pixels
                if joint <= cost[a] + cost[b]:
                    boxes[a], cost[a] = both, joint
                    del boxes[b], cost[b]
                    changed = True
    return [_grown(box, RIM, wanted.shape) for box in boxes]


def pixels_read(parts: list[Rectangle], reach: int, shape: tuple[int, int]) -> int:
    """px that are read for rectangles of blocks, with their margin of `reach` blocks, in a frame of `shape`."""
    return sum(_grown(part, reach, shape).pixels for part in parts) * BLOCK_PX**2


def _grown(box: tuple[int, int, int, int], by: int, shape: tuple[int, ...]) -> Rectangle:
    """A box of blocks grown on all sides, within a frame of `shape` blocks."""
    return Rectangle(
        max(box[0] - by, 0), min(box[1] + by, shape[0]), max(box[2] - by, 0), min(box[3] + by, shape[1])
    )


def inside(place: FloatArray, read: BoolArray) -> BoolArray:
    """Which places (N, 2 or more: x px, y px) count where the blocks that are `read` (h, w) are known."""
    last = np.array(read.shape) - 1
    found = np.ones(len(place), np.bool_)
    for down in (-RIM_PX, 0.0, RIM_PX):
        for across in (-RIM_PX, 0.0, RIM_PX):
            at = np.rint(place[:, 1::-1] + (down, across)).astype(np.int64) // BLOCK_PX
            row, column = np.clip(at, 0, last).T
            found &= read[row, column]
    return found


def blocks_around(bins: BoolArray, bin_px: int, blocks: tuple[int, int]) -> BoolArray:
    """The blocks (h, w) that hold any of the `bins` (h', w') of `bin_px` px, and those next to them."""
    out = np.zeros(blocks, np.bool_)
    at = np.column_stack(np.divmod(np.flatnonzero(bins), bins.shape[1]))
    for row, column in (at * bin_px // BLOCK_PX).tolist():
        out[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
    return out
