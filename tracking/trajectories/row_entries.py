"""Reads tables that have entries for some of a file's rows only, each with the number of its row, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import h5py
import numpy as np
import numpy.typing as npt

from tracking.trajectories.schema import RecordArray

BLOCK = 1 << 16  # entries read at once, 2 MB; more only takes more memory
Order = Callable[[RecordArray], npt.NDArray[np.int64]]


def by_row(entries: RecordArray) -> npt.NDArray[np.int64]:
    """The order of entries of which each row has one at most."""
    rows: npt.NDArray[np.int64] = entries["row"].astype(np.int64)
    return rows


def complete(entries: RecordArray, order: Order = by_row) -> RecordArray:
    """The entries up to the first that is not in order: after a crash, space that was never written may follow."""
    disorder = np.flatnonzero(np.diff(order(entries)) <= 0)
    return entries[: disorder[0] + 1] if disorder.size else entries


class RowEntries:
    """Reads the entries of rows from an open file; quick where rows are asked for in order."""

    def __init__(
        self,
        dataset: h5py.Dataset | None,
        dtype: np.dtype[np.void],
        understood: Callable[[RecordArray], RecordArray],
        order: Order = by_row,
    ) -> None:
        """`understood` gives stored entries the columns of `dtype`; entries rise in `order`."""
        self._dataset, self._dtype = dataset, dtype
        self._understood, self._order = understood, order
        self._row = self._entry = 0

    @property
    def is_empty(self) -> bool:
        """Whether the file has none."""
        return self._dataset is None or self._dataset.shape[0] == 0

    def refresh(self) -> None:
        """See what a live writer has added."""
        if self._dataset is not None:
            self._dataset.refresh()

    def of(self, start: int, stop: int) -> RecordArray:
        """The entries of rows `start` to `stop`, as stored."""
        if self.is_empty:
            return np.empty(0, self._dtype)
        entry = self._entry if start >= self._row else 0
        found = []
        for block in self.blocks(entry):
            low, high = np.searchsorted(block["row"], [start, stop])
            found.append(block[low:high])
            if not found[:-1] or not len(found[0]):
                self._row, self._entry = start, entry + int(low)
            entry += len(block)
            if high < len(block):
                break
        return np.concatenate([np.empty(0, self._dtype), *found])

    def blocks(self, first: int = 0) -> Iterator[RecordArray]:
        """All entries from the `first` on, some at a time."""
        assert self._dataset is not None
        for at in range(first, self._dataset.shape[0], BLOCK):
            block = self._dataset[at : at + BLOCK]
            whole = self._understood(complete(block, self._order))
            yield whole
            if len(whole) < len(block):
                return

    def count(self, rows: int) -> int:
        """How many entries belong to the first `rows` rows."""
        number = 0
        if not self.is_empty:
            for block in self.blocks():
                number += int(np.searchsorted(block["row"], rows))
        return number
