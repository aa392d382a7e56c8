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

from engines.cuda.fit_layout import (
    ACROSS,
    CORNER_X,
    CORNER_Y,
    COUNT,
    COVARIANCE,
    DATA,
    DELTA,
    DRAWN,
    ENDED,
    FILLED,
    FIRST,
    FIT,
    HIGH,
    IS_PLAIN,
    NEAR,
    NEARBY,
    OWN_BOX,
    RECT_TALL,
    RECT_WIDE,
    RECT_X,
    RECT_Y,
    ROW,
    TASK,
    THETA,
    WAITING,
    WAITS,
)
from engines.refine.arguments import BoolArray, Float32Array, FloatArray, IntArray, Particles, Psf
from engines.refine.frame import UNTRIED, take_out
from engines.refine.rendering import BOTTOM, BOX, CELL, LEFT, RIGHT, SPARE_UM, TOP, put, set_box
from engines.refine.spline import TAPS

Int32Array = npt.NDArray[np.int32]
MARGIN_PX = 4
"""px around a particle's rectangle in which the change of its image is written: a step or two. Where a particle has
gone farther, the host draws it, which takes longer."""


class Plan(NamedTuple):
    """A launch: records of `tasks` (T, `TASK`) and `rows` (R, `ROW`), `lists` of rows and tasks, and sizes.

    `particle` (R,) are the particles of the rows, `task_of` (R,) their tasks. `area`, `single` and `images` are the
    values of the largest block, of the largest image of a particle, and of all images of a block; `pixels` and
    `deltas` those that all blocks look at, and that all changes have.
    """

    tasks: Int32Array
    rows: Int32Array
    lists: Int32Array
    particle: IntArray
    task_of: IntArray
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
    theta, _, _, state, usable = particles
    found, of = todo_of(block, usable, chosen)
    count = found.size
    down, across = psf.extent_px[:, 0].max(), psf.extent_px[:, 1].max()
    rows, task_of = np.zeros((count, ROW), np.int32), np.empty(count, np.int64)
    reach, tasks, pixels, deltas = np.empty((count, 4), np.int64), 0, 0, 0
    for r in range(count):
        i = found[r]
        if r == 0 or of[r] != of[r - 1]:
            tasks += 1
        task_of[r] = tasks - 1
        set_box(theta[i], shape, psf, SPARE_UM, boxes[i])
        b, row = boxes[i], rows[r]
        row[OWN_BOX : OWN_BOX + BOX] = b
        row[IS_PLAIN] = state[i] == UNTRIED
        row[RECT_Y], row[RECT_X] = max(b[TOP] - MARGIN_PX, 0), max(b[LEFT] - MARGIN_PX, 0)
        row[RECT_TALL] = min(b[BOTTOM] + MARGIN_PX, shape[0]) - row[RECT_Y]
        row[RECT_WIDE] = min(b[RIGHT] + MARGIN_PX, shape[1]) - row[RECT_X]
        row[DELTA] = deltas
        deltas += row[RECT_TALL] * row[RECT_WIDE]
        reach[r, TOP], reach[r, BOTTOM] = b[TOP] - down - 1, b[BOTTOM] + down + 1
        reach[r, LEFT], reach[r, RIGHT] = b[LEFT] - across - 1, b[RIGHT] + across + 1
    records, sees, goes = (
        np.zeros((tasks, TASK), np.int32),
        np.empty((tasks, 4), np.int64),
        np.empty((tasks, 4), np.int64),
    )
    images, area, first = 0, 0, 0
    for t in range(tasks):
        last = first
        while last < count and task_of[last] == t:
            last += 1
        own = 0
        sees[t], goes[t] = boxes[found[first], :CELL], reach[first]
        for r in range(first, last):
            _cover(sees[t], boxes[found[r]])
            _cover(goes[t], reach[r])
            own += (rows[r, BOTTOM] - rows[r, TOP]) * (rows[r, RIGHT] - rows[r, LEFT])
        tall, wide = sees[t, BOTTOM] - sees[t, TOP], sees[t, RIGHT] - sees[t, LEFT]
        record = records[t]
        record[FIRST], record[COUNT] = first, last - first
        record[CORNER_Y], record[CORNER_X], record[HIGH], record[ACROSS] = (
            sees[t, TOP],
            sees[t, LEFT],
            tall,
            wide,
        )
        record[DATA] = pixels
        pixels += 2 * tall * wide
        images, area, first = max(images, own), max(area, tall * wide), last
    lists = [np.int32(r) for r in range(count)]
    for t in range(tasks):
        waits = len(lists)
        for q in range(t):
            if _overlap(goes[q], sees[t]) or _overlap(sees[q], goes[t]):
                lists.append(np.int32(q))
        near = len(lists)
        for w in range(waits, near):
            q = records[lists[w]]
            for r in range(q[FIRST], q[FIRST] + q[COUNT]):
                if _overlap(reach[r], sees[t]):
                    lists.append(np.int32(r))
        record = records[t]
        record[WAITS], record[WAITING], record[NEAR], record[NEARBY] = (
            waits,
            near - waits,
            near,
            len(lists) - near,
        )
    single = (2 * down + TAPS) * (2 * across + TAPS)
    return Plan(
        records, rows, np.array(lists, np.int32), found, task_of, area, single, images, pixels, deltas
    )


@njit(cache=True, nogil=True)
def _cover(a: IntArray, b: IntArray) -> None:
    """Make a rectangle (4,) larger, so that it holds another."""
    a[TOP], a[BOTTOM] = min(a[TOP], b[TOP]), max(a[BOTTOM], b[BOTTOM])
    a[LEFT], a[RIGHT] = min(a[LEFT], b[LEFT]), max(a[RIGHT], b[RIGHT])


@njit(cache=True, nogil=True)
def _overlap(a: IntArray, b: IntArray) -> bool:
    """Whether two rectangles (4,) share a pixel."""
    return bool(a[TOP] < b[BOTTOM] and b[TOP] < a[BOTTOM] and a[LEFT] < b[RIGHT] and b[LEFT] < a[RIGHT])


@njit(cache=True, nogil=True)
def gather(tasks: Int32Array, frame: Float32Array, total: Float32Array, out: Float32Array) -> None:
    """Fill `out` with what each task looks at: the frame less the image of all, and the image of all."""
    for t in range(tasks.shape[0]):
        task = tasks[t]
        wide, area = task[ACROSS], task[HIGH] * task[ACROSS]
        for i in range(task[HIGH]):
            at, y, x = task[DATA] + i * wide, task[CORNER_Y] + i, task[CORNER_X]
            for j in range(wide):
                seen = total[y, x + j]
                out[at + j] = frame[y, x + j] - seen
                out[at + area + j] = seen


@njit(cache=True, nogil=True)
def apply(
    made: Plan,
    results: FloatArray,
    deltas: Float32Array,
    total: Float32Array,
    particles: Particles,
    psf: Psf,
) -> None:
    """Take over what a launch has found: `results` (R, `RESULT`), and the changes of the image of all, `total`."""
    theta, covariance, fit, state, _ = particles
    for r in range(made.particle.size):
        i, found, row = made.particle[r], results[r], made.rows[r]
        if found[DRAWN] > 0.0:
            wide = row[RECT_WIDE]
            for k in range(row[RECT_TALL]):
                at, y, x = row[DELTA] + k * wide, row[RECT_Y] + k, row[RECT_X]
                for j in range(wide):
                    total[y, x + j] += deltas[at + j]
        else:
            take_out(total, particles, i, psf)
        theta[i] = found[THETA : THETA + 4]
        if found[FILLED] > 0.0:
            covariance[i] = found[COVARIANCE : COVARIANCE + 16].copy().reshape(4, 4)
            fit[i] = found[FIT : FIT + 2]
        state[i] = int(found[ENDED])
        if found[DRAWN] == 0.0:
            put(total, theta[i], 1.0, psf)
