"""Turns nodes and links, as other programs have them, into tracks: paths that pass each frame at most once.

A trajectory is one particle: where a track splits or merges it ends, and each branch is a trajectory of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

IntArray = npt.NDArray[np.int64]
NO_LABEL = -1


@dataclass(frozen=True, slots=True)
class Tracks:
    """`track` (N,) of each node, and what was done to the links, in words."""

    track: IntArray
    remarks: tuple[str, ...]


def tracks_of(frame: IntArray, links: IntArray, label: IntArray | None = None) -> Tracks:
    """The tracks of nodes in these frames, (N,), joined by `links` (M, 2), pairs of node numbers from 0.

    Links have no direction but that of time. `label` (N,) are the numbers that the other program gave its tracks,
    `NO_LABEL` where it gave none: a track keeps it unless another track, or a branch, has it already.
    """
    remarks: list[str] = []
    links = _forward(frame, links, remarks)
    links = _unbranched(len(frame), links, remarks)
    graph = coo_array((np.ones(len(links), np.uint8), links.T), shape=(len(frame), len(frame)))
    _, part = connected_components(graph, directed=False)
    return Tracks(_numbered(part.astype(np.int64), frame, label, remarks), tuple(remarks))


def _forward(frame: IntArray, links: IntArray, remarks: list[str]) -> IntArray:
    """Each link once, from the earlier to the later frame; those within a frame are left out."""
    step = frame[links[:, 1]] - frame[links[:, 0]]
    back = step < 0
    links = np.where(back[:, None], links[:, ::-1], links)[step != 0]
    if count := int(np.count_nonzero(step == 0)):
        remarks.append(f"{count} links within one frame are left out")
    size = max(len(frame), 1)
    once = np.unique(
        links[:, 0] * size + links[:, 1]
    )  # one number a link: pairs take five times the memory to sort
    pairs: IntArray = np.stack([once // size, once % size], axis=1)
    return pairs


def _unbranched(nodes: int, links: IntArray, remarks: list[str]) -> IntArray:
    """The links without those where a track splits or merges."""
    after = np.bincount(links[:, 0], minlength=nodes)
    before = np.bincount(links[:, 1], minlength=nodes)
    splits, merges = int(np.count_nonzero(after > 1)), int(np.count_nonzero(before > 1))
    if splits or merges:
        remarks.append(
            f"tracks end where they split ({splits} times) or merge ({merges} times); each branch is a track"
        )
    kept: IntArray = links[(after[links[:, 0]] == 1) & (before[links[:, 1]] == 1)]
    return kept


def _numbered(part: IntArray, frame: IntArray, label: IntArray | None, remarks: list[str]) -> IntArray:
    """Numbers of tracks: labels where they are clear, further ones in order of first frames."""
    count = int(part.max()) + 1 if part.size else 0
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, part, frame)
    order = np.lexsort((np.arange(count), first))
    if label is None:
        number = np.empty(count, np.int64)
        number[order] = np.arange(count)
        return number[part]
    low, high = np.full(count, np.iinfo(np.int64).max), np.full(count, np.iinfo(np.int64).min)
    np.minimum.at(low, part, label)
    np.maximum.at(high, part, label)
    number = np.where((low == high) & (low > NO_LABEL), low, NO_LABEL)
    _, taken = np.unique(number[order], return_index=True)
    keeps = np.zeros(count, np.bool_)
    keeps[order[taken]] = True
    anew = order[~(keeps & (number > NO_LABEL))[order]]
    start = int(label.max()) + 1 if label.size else 0
    had_one = int(np.count_nonzero(high[anew] > NO_LABEL))
    if had_one:
        remarks.append(
            f"{had_one} tracks have new numbers, from {start}, because theirs were taken or not clear"
        )
    number[anew] = start + np.arange(len(anew))
    return number[part]
