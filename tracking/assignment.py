"""Exact sparse assignment of rows to columns, in which a row may also stay without a column at a constant cost.

Minimises the sum over rows of `cost[row, column]`, or `no_link_cost` for a row without a column; each column is
taken at most once. In tracking rows are tracks, columns are the detections of one frame, and the entries are
the links that the gate allows.

Method: successive shortest augmenting paths on reduced costs c - u - v (R. Jonker & A. Volgenant, Computing 38,
325, 1987), after a greedy start and one pass of row reduction ("augmenting row reduction" there). "No column"
is treated as a column of the row's own that no other row can reach. A search ends as soon as leaving a row
unlinked is the cheapest end, so it stays local however large the problem is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tracking.index_type import Index

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float64]

FREE = -1  # no partner
UNREACHED = -1  # a column's `place` before the search has reached it
DONE = -2  # a column's `place` once its shortest distance is known


class Problem(NamedTuple):
    """Compressed rows: row r may take `indices[indptr[r]:indptr[r + 1]]` at `costs`; sizes of the problem."""

    indptr: Any
    indices: Any
    costs: Any
    no_link_cost: float
    rows: int
    columns: int


class Memory(NamedTuple):
    """The arrays of the algorithm; u, v, d and pred as in Jonker & Volgenant.

    By row: `u` (dual variable), `column_of` (its column, the result), `waiting` (rows still to be assigned). By
    column: `v` (dual variable), `row_of` (its row), `d` (shortest distance from the start), `pred` (the row
    before it on the shortest path), `heap` (columns by distance), `place` (where a column is in the heap),
    `touched` (columns reached).
    """

    u: Any
    column_of: Any
    waiting: Any
    v: Any
    row_of: Any
    d: Any
    pred: Any
    heap: Any
    place: Any
    touched: Any


class AssignmentWorkspace:
    """The memory of `assign`, grown geometrically and kept between calls."""

    def __init__(self, rows: int = 256, columns: int = 256) -> None:
        self._rows, self._columns = rows, columns
        self.memory = self._allocated()

    def reserve(self, rows: int, columns: int) -> None:
        """Make room for a problem of this size."""
        if rows > self._rows:
            self._rows = max(rows, 2 * self._rows)
        elif columns <= self._columns:
            return
        if columns > self._columns:
            self._columns = max(columns, 2 * self._columns)
        self.memory = self._allocated()

    def _allocated(self) -> Memory:
        n, m = self._rows, self._columns
        return Memory(
            u=np.empty(n),
            column_of=np.empty(n, np.int32),
            waiting=np.empty(n, np.int32),
            v=np.empty(m),
            row_of=np.empty(m, np.int32),
            d=np.empty(m),
            pred=np.empty(m, np.int32),
            heap=np.empty(m, np.int32),
            place=np.empty(m, np.int32),
            touched=np.empty(m, np.int32),
        )


def assign(
    indptr: IntArray,
    indices: IntArray,
    costs: FloatArray,
    no_link_cost: float,
    workspace: AssignmentWorkspace,
    columns: int | None = None,
) -> IntArray:
    """Solve one problem in compressed rows: row r may take `indices[indptr[r]:indptr[r + 1]]` at `costs`.

    `columns` is the number of columns; without it, one more than the largest index. Returns the column of
    each row, int32, -1 for none: a view of the workspace that the next call overwrites. Entries that cost
    `no_link_cost` or more, or NaN, are never taken. Indices must be non-negative.
    """
    rows = indptr.size - 1
    if columns is None:
        columns = int(indices[: indptr[-1]].max(initial=-1)) + 1
    workspace.reserve(rows, columns)
    solve((indptr, indices, costs, no_link_cost, rows, columns), tuple(workspace.memory))
    found: IntArray = workspace.memory.column_of[:rows]
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def _sift_up(heap: Any, place: Any, d: Any, at: int) -> None:
    """Move the column at `at` of the heap up to its place."""
    column = heap[at]
    key = d[column]
    while at > 0:
        above = (at - 1) >> 1
        if d[heap[above]] <= key:
            break
        heap[at] = heap[above]
        place[heap[at]] = at
        at = above
    heap[at] = column
    place[column] = at


@njit(cache=True, nogil=True, error_model="numpy")
def _pop(heap: Any, place: Any, d: Any, size: int) -> Any:
    """Remove the nearest column from a heap of `size` and return it; the heap is then `size - 1` long."""
    top = heap[0]
    size -= 1
    if size > 0:
        column = heap[size]
        key = d[column]
        at = 0
        while True:
            below = 2 * at + 1
            if below >= size:
                break
            if below + 1 < size and d[heap[below + 1]] < d[heap[below]]:
                below += 1
            if d[heap[below]] >= key:
                break
            heap[at] = heap[below]
            place[heap[at]] = at
            at = below
        heap[at] = column
        place[column] = at
    return top


@njit(cache=True, nogil=True, error_model="numpy")
def _two_cheapest(row: int, indptr: Any, indices: Any, costs: Any, no_link_cost: float, v: Any) -> Any:
    """Cheapest and second cheapest reduced cost c - v of a row, and the cheapest column (FREE: none at all)."""
    first = no_link_cost
    second = np.inf
    best = FREE
    for k in range(indptr[row], indptr[row + 1]):
        if not costs[k] < no_link_cost:
            continue
        reduced = costs[k] - v[indices[k]]
        if reduced < first:
            second = first
            first = reduced
            best = indices[k]
        elif reduced < second:
            second = reduced
    return first, second, best


@njit(cache=True, nogil=True, error_model="numpy")
def solve(problem: Any, memory: Any) -> None:
    """Fill `memory.column_of[:rows]`.

    Both arguments are plain tuples in the order of `Problem` and `Memory`: numba takes a tuple of arrays from
    Python five times as fast as a NamedTuple of them (0.4 against 2 us).
    """
    problem, memory = Problem(*problem), Memory(*memory)
    indptr, indices, costs, no_link_cost, rows, columns = problem
    u, v, column_of, row_of, waiting = memory.u, memory.v, memory.column_of, memory.row_of, memory.waiting
    v[:columns] = 0.0
    row_of[:columns] = FREE
    memory.place[:columns] = UNREACHED
    left = 0
    for row in range(rows):
        first, _, best = _two_cheapest(row, indptr, indices, costs, no_link_cost, v)
        u[row] = first
        column_of[row] = FREE
        if best == FREE:
            continue
        if row_of[best] == FREE:
            row_of[best] = row
            column_of[row] = best
        else:
            waiting[left] = row
            left += 1
    # Row reduction: a waiting row bids for its cheapest column; the row it displaces waits for the search below.
    still = 0
    for k in range(left):
        row = Index(waiting[k])
        first, second, best = _two_cheapest(row, indptr, indices, costs, no_link_cost, v)
        u[row] = first
        if best == FREE:
            continue
        other = row_of[best]
        if other == FREE:
            row_of[best] = row
            column_of[row] = best
        elif second > first:
            u[row] = second
            v[best] -= second - first
            row_of[best] = row
            column_of[row] = best
            column_of[other] = FREE
            waiting[still] = other
            still += 1
        else:
            waiting[still] = row
            still += 1
    for k in range(still):
        _augment(Index(waiting[k]), problem, memory)


@njit(cache=True, nogil=True, error_model="numpy")
def _augment(start: int, problem: Any, memory: Any) -> None:
    """Find the shortest augmenting path from an unassigned row, update u and v, and flip the path."""
    indptr, indices, costs, no_link_cost, _, _ = problem
    u, v, d, pred = memory.u, memory.v, memory.d, memory.pred
    column_of, row_of = memory.column_of, memory.row_of
    heap, place, touched = memory.heap, memory.place, memory.touched
    first, _, _ = _two_cheapest(start, indptr, indices, costs, no_link_cost, v)
    u[start] = first
    row = start
    reach = 0.0
    end = np.inf
    end_row = start
    end_column = FREE
    size = Index(0)  # so here and below: one type, for which the functions called are compiled once
    reached = 0
    while True:
        unlinked = reach + no_link_cost - u[row]
        if unlinked < end:
            end = unlinked
            end_row = row
            end_column = FREE
        for k in range(indptr[row], indptr[row + 1]):
            if not costs[k] < no_link_cost:
                continue
            column = indices[k]
            if place[column] == DONE:
                continue
            length = reach + costs[k] - u[row] - v[column]
            if length >= end:
                continue
            if row_of[column] == FREE:
                end = length
                end_row = row
                end_column = column
            elif place[column] == UNREACHED:
                d[column] = length
                pred[column] = row
                heap[size] = column
                _sift_up(heap, place, d, size)
                size += 1
                touched[reached] = column
                reached += 1
            elif length < d[column]:
                d[column] = length
                pred[column] = row
                _sift_up(heap, place, d, Index(place[column]))
        if size == 0 or d[heap[0]] >= end:
            break
        column = _pop(heap, place, d, size)
        size -= 1
        place[column] = DONE
        row = Index(row_of[column])
        reach = d[column]
    u[start] += end
    for k in range(reached):
        column = touched[k]
        if place[column] == DONE:
            gain = end - d[column]
            v[column] -= gain
            u[row_of[column]] += gain
        place[column] = UNREACHED
    row = end_row
    column = end_column
    while True:
        freed = column_of[row]
        column_of[row] = column
        if column != FREE:
            row_of[column] = row
        if row == start:
            break
        column = freed
        row = pred[column]
