"""The kind of particle of each track, from what all of its detections say.

Each detection names a class k with the probability p of being it. With C classes seen so far, that is evidence for
k against each other class of ln(p / ((1 - p) / (C - 1))). Evidence is averaged over the track's detections; the
average counts as few detections (`INDEPENDENT`), since images of one particle err alike.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream.messages import Detections, Tracks
from tracking.known_tracks import found_again

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MOST_KINDS = 16
"""Classes that are told apart. A detector's classes beyond are not known ones; it only bounds memory."""
INDEPENDENT = 4.0
"""As how many independent detections all of a track's count. It does not change the class, only its probability."""
SMALLEST_P = 1e-3  # a detector's own probability cannot be surer than a share of bad images
EVEN_P = 0.75
"""Probability of a class that states none: a detection then counts as much as any other, and a majority decides."""
TRACK, DETECTION, KIND, P_KIND = (
    Tracks.COLUMNS.index(name) for name in ("track", "detection", "kind", "p_kind")
)
SEEN_KIND, SEEN_P = Detections.COLUMNS.index("kind"), Detections.COLUMNS.index("p_kind")


class TrackKinds:
    """Remembers the evidence of all live tracks; costs nothing until a detection has a class."""

    def __init__(self) -> None:
        self.is_active = False
        self._classes = 1
        self._tracks: IntArray = np.empty(0, np.int64)
        self._evidence: FloatArray = np.empty((MOST_KINDS, 0))
        self._seen: FloatArray = np.empty(0)

    def write(self, rows: FloatArray, detections: FloatArray) -> None:
        """Write class and probability into the rows of `Tracks` (columns, N), given the table of `Detections`."""
        if not self.is_active:
            self.is_active = bool(np.isfinite(detections[SEEN_KIND]).any())
            if not self.is_active:
                return
        self._follow(rows[TRACK].astype(np.int64))
        self._learn(rows[DETECTION].astype(np.int64), detections)
        known = self._seen > 0
        if not known.any():
            return
        mean = self._evidence[: self._classes, known] / self._seen[known]
        odds = mean * np.minimum(self._seen[known], INDEPENDENT)
        share = np.exp(odds - odds.max(axis=0))
        best = odds.argmax(axis=0)
        rows[KIND, known] = best
        rows[P_KIND, known] = share[best, np.arange(best.size)] / share.sum(axis=0)

    def _follow(self, tracks: IntArray) -> None:
        """Keep what is known of the tracks (N,) that there are now; both are in order of their numbers."""
        old, at = found_again(self._tracks, tracks)
        evidence, seen = np.zeros((MOST_KINDS, tracks.size)), np.zeros(tracks.size)
        evidence[:, old], seen[old] = self._evidence[:, at], self._seen[at]
        self._tracks, self._evidence, self._seen = tracks, evidence, seen

    def _learn(self, row: IntArray, detections: FloatArray) -> None:
        """Take what the detections `row` (N,) of the tracks say, -1 for none."""
        there = np.flatnonzero(row >= 0)
        kind, p = detections[SEEN_KIND, row[there]], detections[SEEN_P, row[there]]
        named = (kind >= 0) & (kind < MOST_KINDS) & (kind == np.floor(kind))
        there, kind, p = there[named], kind[named].astype(np.int64), p[named]
        if not there.size:
            return
        self._classes = max(self._classes, int(kind.max()) + 1)
        p = np.clip(np.where((p >= 0) & (p <= 1), p, EVEN_P), SMALLEST_P, 1.0 - SMALLEST_P)
        self._evidence[kind, there] += np.log(p / (1.0 - p) * max(self._classes - 1, 1))
        self._seen[there] += 1.0
