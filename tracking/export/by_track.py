"""Sorts rows by track."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tracking.trajectories.columns import IntArray, Trajectories


@dataclass(frozen=True, slots=True)
class ByTrack:
    """`order` (N,) sorts rows by track, then frame; track `number[i]` is `order[first[i] : first[i + 1]]`."""

    order: IntArray
    number: IntArray
    first: IntArray

    def __iter__(self) -> Iterator[IntArray]:
        """The rows of each track, in order of frames."""
        for start, stop in zip(self.first[:-1], self.first[1:], strict=True):
            yield self.order[start:stop]


def by_track(trajectories: Trajectories) -> ByTrack:
    """Sort by track; rows come in the order of frames, which a stable sort keeps within a track."""
    order = np.argsort(trajectories.track, kind="stable")
    number, first = np.unique(trajectories.track[order], return_index=True)
    return ByTrack(order, number, np.append(first, len(order)).astype(np.int64))
