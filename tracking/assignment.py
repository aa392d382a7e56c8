"""Exact sparse assignment of rows to columns, each row with a private way out at constant cost.

Minimises the sum over rows of `cost[row, column]`, or `no_link_cost` for a row that takes no column, with
each column taken at most once: the gated linking problem of one frame pair. Successive shortest augmenting
paths on reduced costs (Jonker & Volgenant, Computing 38, 325, 1987), after a greedy start and one pass of
row reduction. A row's way out is a column of its own that nobody else can reach, so a search ends as soon as
leaving somebody unlinked is the cheapest end, and stays local however large the problem is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float64]

FREE = -1
UNREACHED = -1
DONE = -2


class AssignmentWorkspace:
    """The memory of `assign`, grown geometrically and kept between calls."""

    def __init__(self, rows: int = 256, columns: int = 256) -> None:
        self._grow_rows(rows)
        self._grow_columns(columns)

    def reserve(self, rows: int, columns: int) -> None:
        """Make room for a problem of this size."""
        if rows > self.row_price.size:
            self._grow_rows(max(rows, 2 * self.row_price.size))
        if columns > self.column_price.size:
            self._grow_columns(max(columns, 2 * self.column_price.size))

    def _grow_rows(self, size: int) -> None:
        self.row_price: FloatArray = np.empty(size)
        self.column_of: IntArray = np.empty(size, np.int32)
        self.waiting: IntArray = np.empty(size, np.int32)

    def _grow_columns(self, size: int) -> None:
        self.column_price: FloatArray = np.empty(size)
        self.row_of: IntArray = np.empty(size, np.int32)
        self.distance: FloatArray = np.empty(size)
        self.parent: IntArray = np.empty(size, np.int32)
        self.heap: IntArray = np.empty(size, np.int32)
        self.place: IntArray = np.empty(size, np.int32)
        self.touched: IntArray = np.empty(size, np.int32)


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
    w = workspace
    solve(
        indptr, indices, costs, no_link_cost, rows, columns,
        w.row_price, w.column_of, w.waiting,
        w.column_price, w.row_of, w.distance, w.parent, w.heap, w.place, w.touched,
    )  # fmt: skip
    return w.column_of[:rows]


@njit(cache=True, nogil=True, error_model="numpy")
def _sift_up(heap, place, distance, at):  # type: ignore[no-untyped-def]
    column = heap[at]
    key = distance[column]
    while at > 0:
        above = (at - 1) >> 1
        if distance[heap[above]] <= key:
            break
        heap[at] = heap[above]
        place[heap[at]] = at
        at = above
    heap[at] = column
    place[column] = at


@njit(cache=True, nogil=True, error_model="numpy")
def _pop(heap, place, distance, size):  # type: ignore[no-untyped-def]
    """Remove the nearest column; the caller's heap is then `size - 1` long."""
    top = heap[0]
    size -= 1
    if size > 0:
        column = heap[size]
        key = distance[column]
        at = 0
        while True:
            below = 2 * at + 1
            if below >= size:
                break
            if below + 1 < size and distance[heap[below + 1]] < distance[heap[below]]:
                below += 1
            if distance[heap[below]] >= key:
                break
            heap[at] = heap[below]
            place[heap[at]] = at
            at = below
        heap[at] = column
        place[column] = at
    return top


@njit(cache=True, nogil=True, error_model="numpy")
def _two_cheapest(row, indptr, indices, costs, no_link_cost, column_price):  # type: ignore[no-untyped-def]
    """Cheapest and second cheapest reduced cost of a row and the cheapest column (FREE: its way out)."""
    first = no_link_cost
    second = np.inf
    best = FREE
    for k in range(indptr[row], indptr[row + 1]):
        if not costs[k] < no_link_cost:
            continue
        reduced = costs[k] - column_price[indices[k]]
        if reduced < first:
            second = first
            first = reduced
            best = indices[k]
        elif reduced < second:
            second = reduced
    return first, second, best


@njit(cache=True, nogil=True, error_model="numpy")
def solve(  # type: ignore[no-untyped-def]
    indptr, indices, costs, no_link_cost, rows, columns,
    row_price, column_of, waiting, column_price, row_of, distance, parent, heap, place, touched,
):  # fmt: skip
    """Fill `column_of[:rows]`; the arrays after `columns` are an `AssignmentWorkspace`'s."""
    column_price[:columns] = 0.0
    row_of[:columns] = FREE
    place[:columns] = UNREACHED
    left = 0
    for row in range(rows):
        first, _, best = _two_cheapest(row, indptr, indices, costs, no_link_cost, column_price)
        row_price[row] = first
        column_of[row] = FREE
        if best == FREE:
            continue
        if row_of[best] == FREE:
            row_of[best] = row
            column_of[row] = best
        else:
            waiting[left] = row
            left += 1
    # Row reduction: a waiting row bids for its cheapest column; whom it displaces waits for the search below.
    still = 0
    for k in range(left):
        row = waiting[k]
        first, second, best = _two_cheapest(row, indptr, indices, costs, no_link_cost, column_price)
        row_price[row] = first
        if best == FREE:
            continue
        other = row_of[best]
        if other == FREE:
            row_of[best] = row
            column_of[row] = best
        elif second > first:
            row_price[row] = second
            column_price[best] -= second - first
            row_of[best] = row
            column_of[row] = best
            column_of[other] = FREE
            waiting[still] = other
            still += 1
        else:
            waiting[still] = row
            still += 1
    for k in range(still):
        _augment(
            waiting[k], indptr, indices, costs, no_link_cost,
            row_price, column_of, column_price, row_of, distance, parent, heap, place, touched,
        )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def _augment(  # type: ignore[no-untyped-def]
    start, indptr, indices, costs, no_link_cost,
    row_price, column_of, column_price, row_of, distance, parent, heap, place, touched,
):  # fmt: skip
    """Find the shortest augmenting path from an unassigned row, update the prices and flip the path."""
    first, _, _ = _two_cheapest(start, indptr, indices, costs, no_link_cost, column_price)
    row_price[start] = first
    row = start
    reach = 0.0
    end = np.inf
    end_row = start
    end_column = FREE
    size = 0
    reached = 0
    while True:
        way_out = reach + no_link_cost - row_price[row]
        if way_out < end:
            end = way_out
            end_row = row
            end_column = FREE
        for k in range(indptr[row], indptr[row + 1]):
            if not costs[k] < no_link_cost:
                continue
            column = indices[k]
            if place[column] == DONE:
                continue
            length = reach + costs[k] - row_price[row] - column_price[column]
            if length >= end:
                continue
            if row_of[column] == FREE:
                end = length
                end_row = row
                end_column = column
            elif place[column] == UNREACHED:
                distance[column] = length
                parent[column] = row
                heap[size] = column
                _sift_up(heap, place, distance, size)
                size += 1
                touched[reached] = column
                reached += 1
            elif length < distance[column]:
                distance[column] = length
                parent[column] = row
                _sift_up(heap, place, distance, place[column])
        if size == 0 or distance[heap[0]] >= end:
            break
        column = _pop(heap, place, distance, size)
        size -= 1
        place[column] = DONE
        row = row_of[column]
        reach = distance[column]
    row_price[start] += end
    for k in range(reached):
        column = touched[k]
        if place[column] == DONE:
            gain = end - distance[column]
            column_price[column] -= gain
            row_price[row_of[column]] += gain
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
        row = parent[column]
