"""Which blocks of a frame are fitted in a launch, which of them wait for which, and the pixels that they look at.

A task may start when all earlier ones are done whose particles may have come into its rectangle, or that look at
where its own particles may go: then what it sees is what the processor sees, which fits one after the other. Where
a particle may go in one fit is bounded: a fit that leaves its rectangle does not count (`refine.frame.fit_blocks`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from engines.cuda.fit.layout import (
    ACROSS,
    CORNER_X,
    CORNER_Y,
    COUNT,
    DATA,
    DELTA,
    FIRST,
    HIGH,
    IS_PLAIN,
    NEAR,
    NEARBY,
    OWN_BOX,
    PARENT,
    RECT_TALL,
    RECT_WIDE,
    RECT_X,
    RECT_Y,
    ROW,
    TASK,
    WAITING,
    WAITS,
)
from engines.refine.arguments import BoolArray, IntArray, Particles, Psf
from engines.refine.frame import UNTRIED
from engines.refine.rendering import BOTTOM, BOX, LEFT, RIGHT, SPARE_UM, TOP, set_box
from engines.refine.spline import TAPS

Int32Array = npt.NDArray[np.int32]
MARGIN_PX = 4
"""px around a particle's rectangle in which the change of its image is written: a step or two. Where a particle has
gone farther, the host draws it, which takes longer."""


class Plan(NamedTuple):
    """A launch: records of `tasks` (T, `TASK`) and `rows` (R, `ROW`), `lists` of rows and tasks, and sizes.

    `particle` (R,) are the particles of the rows. `area`, `single` and `images` are the
    values of the largest block, of the largest image of a particle, and of all images of a block; `pixels` and
    `deltas` those that all blocks look at, and that all changes have.
    """

    tasks: Int32Array
    rows: Int32Array
    lists: Int32Array
    particle: IntArray
    area: int
    single: int
    images: int
    pixels: int
    deltas: int


@njit(cache=True, nogil=True)
def todo_of(block: IntArray, usable: BoolArray, chosen: BoolArray) -> tuple[IntArray, IntArray]:
    """Particles (R,) of the blocks that hold any of the `chosen` (N,), block by block, and their blocks (R,)."""
    n = block.size
    asked = np.zeros(n, np.bool_)
    for i in range(n):
        if usable[i] and chosen[i]:
            asked[block[i]] = True
    start = np.zeros(n + 1, np.int64)
    for i in range(n):
        if usable[i] and asked[block[i]]:
            start[block[i] + 1] += 1
    start = np.cumsum(start)
    found, of = np.empty(start[n], np.int64), np.empty(start[n], np.int64)
    for i in range(n):
        if usable[i] and asked[block[i]]:
            found[start[block[i]]], of[start[block[i]]] = i, block[i]
            start[block[i]] += 1
    return found, of


@njit(cache=True, nogil=True)
def plan(
    shape: tuple[int, int],
    particles: Particles,
    boxes: IntArray,
    block: IntArray,
    chosen: BoolArray,
    psf: Psf,
) -> Plan:
    """The launch that fits the blocks that hold any of the `chosen` (N,) of the `particles`, in rising order.

    `boxes` (N, `BOX`) become the rectangles of those particles where they are now; `block` (N,) are their blocks.
    """
    found, of = todo_of(block, particles.usable, chosen)
    rows, reach, deltas = _rows(shape, particles, boxes, found, of, psf)
    tasks, sees, goes, area, images, pixels = _tasks(shape, rows, reach, found, of)
    lists = _lists(tasks, sees, goes, reach)
    down, across = psf.extent_px[:, 0].max(), psf.extent_px[:, 1].max()
    single = (2 * down + TAPS) * (2 * across + TAPS)
    return Plan(tasks, rows, lists, found, area, single, images, pixels, deltas)


@njit(cache=True, nogil=True)
def _rows(
    shape: tuple[int, int], particles: Particles, boxes: IntArray, found: IntArray, of: IntArray, psf: Psf
) -> tuple[Int32Array, IntArray, int]:
    """The rows (R, `ROW`), how far (R, 4) the images of their particles may come, and the values of all changes."""
    count = found.size
    down, across = psf.extent_px[:, 0].max(), psf.extent_px[:, 1].max()
    rows, reach, deltas = np.zeros((count, ROW), np.int32), np.empty((count, 4), np.int64), 0
    for r in range(count):
        i = found[r]
        set_box(particles.theta[i], shape, psf, SPARE_UM, boxes[i])
        b, row = boxes[i], rows[r]
        row[OWN_BOX : OWN_BOX + BOX] = b
        row[IS_PLAIN] = particles.state[i] == UNTRIED
        row[RECT_Y], row[RECT_X] = max(b[TOP] - MARGIN_PX, 0), max(b[LEFT] - MARGIN_PX, 0)
        row[RECT_TALL] = min(b[BOTTOM] + MARGIN_PX, shape[0]) - row[RECT_Y]
        row[RECT_WIDE] = min(b[RIGHT] + MARGIN_PX, shape[1]) - row[RECT_X]
        row[DELTA] = deltas
        deltas += row[RECT_TALL] * row[RECT_WIDE]
        several = (r > 0 and of[r - 1] == of[r]) or (r + 1 < count and of[r + 1] == of[r])
        # one of several may be fitted twice, the second time from a rectangle within the margin
        around = MARGIN_PX + 1 if several else 1
        reach[r, TOP], reach[r, BOTTOM] = b[TOP] - down - around, b[BOTTOM] + down + around
        reach[r, LEFT], reach[r, RIGHT] = b[LEFT] - across - around, b[RIGHT] + across + around
    return rows, reach, deltas


@njit(cache=True, nogil=True)
def _tasks(
    shape: tuple[int, int], rows: Int32Array, reach: IntArray, found: IntArray, of: IntArray
) -> tuple[Int32Array, IntArray, IntArray, int, int, int]:
    """The tasks (T, `TASK`), the rectangles (T, 4) that each looks at and that its images may come into.

    A block of several has one for all of its particles, in the place of the one that it is named after, and, in
    case that it is singular, one for each particle behind that. Also the values of the largest block and of all
    images of one, and those of all pixels.
    """
    count = found.size
    tasks, sees, goes = (
        np.zeros((count, TASK), np.int32),
        np.empty((count, 4), np.int64),
        np.empty((count, 4), np.int64),
    )
    start, end = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for r in range(count):
        start[r] = start[r - 1] if r > 0 and of[r] == of[r - 1] else r
    for r in range(count - 1, -1, -1):
        end[r] = end[r + 1] if r + 1 < count and of[r] == of[r + 1] else r + 1
    parent = np.full(count, -1)  # by the first row of a block
    made, area, images, pixels = 0, 0, 0, 0
    for r in np.argsort(
        found.astype(np.float64)
    ):  # that type is sorted elsewhere: sorting takes long to compile
        if found[r] < of[r]:
            continue
        task, rect = tasks[made], rows[r]
        if found[r] > of[r]:
            task[:] = tasks[parent[start[r]]]
            task[FIRST], task[COUNT], task[PARENT] = r, 1, parent[start[r]]
            sees[made, TOP], sees[made, BOTTOM] = rect[RECT_Y], rect[RECT_Y] + rect[RECT_TALL]
            sees[made, LEFT], sees[made, RIGHT] = rect[RECT_X], rect[RECT_X] + rect[RECT_WIDE]
            goes[made] = reach[r]
            images = max(images, rect[RECT_TALL] * rect[RECT_WIDE])
        else:
            first, last, own = start[r], end[r], 0
            for side in range(4):
                sees[made, side], goes[made, side] = rows[first, side], reach[first, side]
            for m in range(first, last):
                _cover(sees[made], rows[m])
                _cover(goes[made], reach[m])
                own += (rows[m, BOTTOM] - rows[m, TOP]) * (rows[m, RIGHT] - rows[m, LEFT])
            around = MARGIN_PX if last - first > 1 else 0
            top, left = max(sees[made, TOP] - around, 0), max(sees[made, LEFT] - around, 0)
            tall = min(sees[made, BOTTOM] + around, shape[0]) - top
            wide = min(sees[made, RIGHT] + around, shape[1]) - left
            task[FIRST], task[COUNT], task[PARENT] = first, last - first, -1
            task[CORNER_Y], task[CORNER_X], task[HIGH], task[ACROSS] = top, left, tall, wide
            task[DATA] = pixels
            pixels += 2 * tall * wide
            images, area = max(images, own), max(area, tall * wide)
            parent[first] = made
        made += 1
    return tasks[:made], sees[:made], goes[:made], area, images, pixels


@njit(cache=True, nogil=True)
def _lists(tasks: Int32Array, sees: IntArray, goes: IntArray, reach: IntArray) -> Int32Array:
    """The rows one after another, then for each task those that it waits for, and the rows that may be near."""
    lists = [np.int32(r) for r in range(reach.shape[0])]
    last_seen = np.full(reach.shape[0], -1)
    for t in range(tasks.shape[0]):
        task, waits = tasks[t], len(lists)
        for q in range(t):
            if _overlap(goes[q], sees[t]) or _overlap(sees[q], goes[t]):
                lists.append(np.int32(q))
        near = len(lists)
        own = task[FIRST] if task[PARENT] >= 0 else -1
        for w in range(waits, near):
            q = tasks[lists[w]]
            for r in range(q[FIRST], q[FIRST] + q[COUNT]):
                if r != own and last_seen[r] != t and _overlap(reach[r], sees[t]):
                    last_seen[r] = t
                    lists.append(np.int32(r))
        task[WAITS], task[WAITING], task[NEAR], task[NEARBY] = waits, near - waits, near, len(lists) - near
    return np.array(lists, np.int32)


@njit(cache=True, nogil=True)
def _cover(a: IntArray, b: npt.NDArray[np.integer]) -> None:
    """Make a rectangle (4,) larger, so that it holds another."""
    a[TOP], a[BOTTOM] = min(a[TOP], b[TOP]), max(a[BOTTOM], b[BOTTOM])
    a[LEFT], a[RIGHT] = min(a[LEFT], b[LEFT]), max(a[RIGHT], b[RIGHT])


@njit(cache=True, nogil=True)
def _overlap(a: IntArray, b: IntArray) -> bool:
    """Whether two rectangles (4,) share a pixel."""
    return bool(a[TOP] < b[BOTTOM] and b[TOP] < a[BOTTOM] and a[LEFT] < b[RIGHT] and b[LEFT] < a[RIGHT])
