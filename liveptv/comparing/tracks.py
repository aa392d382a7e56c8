"""How the detections that two trajectory files share are linked in each: same, split and joined tracks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tracking.trajectories.schema import RecordArray

IntArray = npt.NDArray[np.int64]
NEW, ALONE = -2, -1  # a track's last detection: there was none; it has no partner
COMPACT = 1 << 20  # pairs of tracks after which equal ones are added up


class _OneSide:
    """The tracks of one file: how many detections each has, and the other's track at its last one."""

    def __init__(self) -> None:
        self.rows: IntArray = np.zeros(0, np.int64)
        self._last: IntArray = np.zeros(0, np.int64)
        self.links = self.shared = self.broken = 0

    def add(self, track: IntArray, partner: IntArray) -> None:
        """Take detections in order of frames: their tracks (N,) and the other file's track or `ALONE`."""
        if not len(track):
            return
        most = int(track.max()) + 1
        if most > len(self.rows):
            more = max(most, 2 * len(self.rows)) - len(self.rows)
            self.rows = np.concatenate([self.rows, np.zeros(more, np.int64)])
            self._last = np.concatenate([self._last, np.full(more, NEW, np.int64)])
        order = np.argsort(track, kind="stable")
        track, partner = track[order], partner[order]
        begins = np.concatenate([[True], track[1:] != track[:-1]])
        before = np.concatenate([[0], partner[:-1]])
        before[begins] = self._last[track[begins]]
        linked = before != NEW
        both = linked & (before != ALONE) & (partner != ALONE)
        self.links += int(linked.sum())
        self.shared += int(both.sum())
        self.broken += int((both & (before != partner)).sum())
        ends = np.concatenate([begins[1:], [True]])
        self._last[track[ends]] = partner[ends]
        self.rows += np.bincount(track, minlength=len(self.rows))


class TrackDifference:
    """Tracks by the detections that both files have; give all frames in order, then read `to_dict`."""

    def __init__(self) -> None:
        self._a, self._b = _OneSide(), _OneSide()
        self._pairs: list[tuple[npt.NDArray[np.uint64], IntArray]] = []
        self._waiting = 0

    def add(self, a: RecordArray, b: RecordArray, pairs: tuple[IntArray, IntArray]) -> None:
        """Take the detections (ROW) of some frames and their `pairs_of`."""
        at, other = pairs
        track_a, track_b = a["track"].astype(np.int64), b["track"].astype(np.int64)
        of_a, of_b = np.full(len(a), ALONE, np.int64), np.full(len(b), ALONE, np.int64)
        of_a[at], of_b[other] = track_b[other], track_a[at]
        self._a.add(track_a, of_a)
        self._b.add(track_b, of_b)
        both = (track_a[at].astype(np.uint64) << np.uint64(32)) | track_b[other].astype(np.uint64)
        found, count = np.unique(both, return_counts=True)
        self._pairs.append((found, count))
        self._waiting += len(found)
        if self._waiting > COMPACT:
            self._pairs = [self._added_up()]
            self._waiting = 0

    def _added_up(self) -> tuple[npt.NDArray[np.uint64], IntArray]:
        if not self._pairs:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        keys = np.concatenate([pair[0] for pair in self._pairs])
        counts = np.concatenate([pair[1] for pair in self._pairs])
        found, where = np.unique(keys, return_inverse=True)
        return found, np.bincount(where, counts, len(found)).astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """As JSON: tracks of each file, those with the `same` detections, `split` ones of A, `joined` ones of B.

        Of links between successive detections that both files have, `other_links_a` lead to another track in B.
        """
        keys, counts = self._added_up()
        track_a = (keys >> np.uint64(32)).astype(np.int64)
        track_b = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
        same = (counts == self._a.rows[track_a]) & (counts == self._b.rows[track_b])
        partners_a = np.bincount(track_a, minlength=1)
        partners_b = np.bincount(track_b, minlength=1)
        return {
            "a": int((self._a.rows > 0).sum()),
            "b": int((self._b.rows > 0).sum()),
            "same": int(same.sum()),
            "split": int((partners_a > 1).sum()),
            "joined": int((partners_b > 1).sum()),
            "links_a": self._a.links,
            "links_b": self._b.links,
            "shared_links": self._a.shared,
            "other_links_a": self._a.broken,
            "other_links_b": self._b.broken,
        }
