"""The commit mark of a trajectory file: the order in which a commit is written, and which frames are committed.

A commit writes rows, what more is known of them, slices of volumes, events and, last, the entries of its frames in
`/frames`. Such an entry is the commit mark: it says which rows belong to the frame, and its `commit`, the number of
the commit, is not 0. A frame is committed once its entry and these rows exist. Readers and recovery use nothing
else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import h5py
import numpy as np
import numpy.typing as npt

from tracking.trajectories.schema import RecordArray


def write_commit(
    file: Sequence[h5py.Dataset], written: Sequence[int], values: Sequence[npt.NDArray[np.generic]]
) -> None:
    """Append `values` to the datasets of a `file`, each flushed before the next; the last are those of the frames.

    `written` is how much of each is committed. What lies behind is left over from a failed commit and is
    overwritten. Raises OSError or RuntimeError if the disk fails.
    """
    for dataset, start, new in zip(file, written, values, strict=True):
        _extend(dataset, new, start)


def _extend(dataset: h5py.Dataset, values: npt.NDArray[np.generic], start: int) -> None:
    if len(values):
        # what `dataset[start:] = values` does, without describing the table's columns to HDF5 each time
        dataset.id.set_extent((start + len(values),))
        place = dataset.id.get_space()
        place.select_hyperslab((start,), values.shape)
        dataset.id.write(h5py.h5s.create_simple(values.shape), place, values, _described(values.dtype))
        dataset.flush()


@lru_cache(maxsize=8)
def _described(dtype: np.dtype[np.generic]) -> h5py.h5t.TypeID:
    return h5py.h5t.py_create(dtype)


def committed_frames(frames: RecordArray, rows: int, first_row: int = 0) -> int:
    """How many of `frames` (in file order, FRAME) are committed, given how many rows the file has.

    `first_row` is where the first of them must begin. The count ends at the first entry that is not complete: all
    zeros (allocated, never written), rows missing, or rows that do not begin where those of the entry before end.
    """
    ends = first_row + np.cumsum(frames["rows"], dtype=np.uint64)
    begins = ends - frames["rows"]
    whole = (frames["commit"] > 0) & (frames["first_row"] == begins) & (ends <= rows)
    return int(np.argmin(whole)) if not whole.all() else len(frames)
