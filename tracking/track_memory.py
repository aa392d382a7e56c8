"""The arrays that the tracker works in: pre-allocated, grown geometrically, never shrunk.

Row lengths are kept off powers of two, or the same column of all rows would fall into one set of the cache.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from stream.messages import Detections
from tracking import kalman, track_life
from tracking.assignment import AssignmentWorkspace
from tracking.candidates import CandidateWorkspace
from tracking.process_noise import JUDGED_ROWS

FloatArray = npt.NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)

FIRST_SIZE = 256
"""Tracks and detections that fit at first. The arrays double when they are full, so it only saves the first
doublings."""
PADDING = 40


class TrackMemory:
    """State of all tracks (`state`, `label`, see `tracking.kalman`), and one frame's detections."""

    def __init__(self) -> None:
        self.assignment = AssignmentWorkspace()
        self.candidates = CandidateWorkspace()
        self.state: FloatArray = np.zeros((kalman.STATES, FIRST_SIZE + PADDING))
        self.label: npt.NDArray[np.int64] = np.zeros((kalman.LABELS, FIRST_SIZE + PADDING), np.int64)
        self.settled: npt.NDArray[np.bool_] = np.zeros(FIRST_SIZE + PADDING, np.bool_)
        self.tally: npt.NDArray[np.int64] = np.zeros(track_life.TALLIES, np.int64)
        self.judged: FloatArray = np.zeros((JUDGED_ROWS, FIRST_SIZE + PADDING))
        self.fresh, self.astray = np.zeros((2, FIRST_SIZE + PADDING), np.bool_)
        self.widest: FloatArray = np.zeros(3)
        self._allocate_detections(FIRST_SIZE + PADDING)

    def reserve(self, tracks: int, detections: int) -> None:
        """Make room for `tracks` live tracks and `detections` of one frame."""
        have = self.state.shape[1]
        if tracks > have:
            size = max(tracks, 2 * have) + PADDING
            self.state = _widened(self.state, size)
            self.label = _widened(self.label, size)
            self.settled = np.zeros(size, np.bool_)
            self.judged = np.zeros((JUDGED_ROWS, size))
            self.fresh, self.astray = np.zeros((2, size), np.bool_)
        if detections > self.measured.origin.size:
            self._allocate_detections(max(detections, 2 * self.measured.origin.size) + PADDING)
        self.candidates.reserve(tracks, detections)
        self.assignment.reserve(tracks, detections)

    def _allocate_detections(self, size: int) -> None:
        self.measured = kalman.Measured(
            z=np.zeros((3, size)),
            R=np.zeros((3, size)),
            origin=np.zeros(size, np.int32),
            table=np.zeros((len(Detections.COLUMNS), size)),
        )
        self.taken: npt.NDArray[np.bool_] = np.zeros(size, np.bool_)


def _widened(array: npt.NDArray[Scalar], size: int) -> npt.NDArray[Scalar]:
    wide = np.zeros((array.shape[0], size), array.dtype)
    wide[:, : array.shape[1]] = array
    return wide
