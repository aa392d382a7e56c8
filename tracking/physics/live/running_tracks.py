"""What the tracks of a run say of their velocities so far, updated frame by frame."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from stream.messages import FrameInfo, TrackFlag, Tracks
from tracking.physics.live.track_sums import (
    AXES,
    DETECTIONS,
    DIFFUSION,
    FIELDS,
    FIRST_S,
    FLAGS,
    LAST_S,
    follow_frame,
)
from tracking.physics.tracks.information import ROWS, place_of, velocity_of
from tracking.physics.tracks.velocities import MIN_LENGTH, TrackVelocities

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LONGEST_S = 4.0
"""Age, s, at which a track that goes on is handed over and begun anew, so that its news are not older. Where random
steps limit the velocities nothing is lost; where localisation does, a track of twice the length would know it 2.8
times better."""
FIRST_ROOM = 256
PREDICTED = int(TrackFlag.PREDICTED)  # as plain numbers: enumerations are slow with arrays
NOT_COUNTED = int(TrackFlag.TENTATIVE | TrackFlag.SECOND_DETECTION)


class RunningTracks:
    """Tracks alive; `take_in` one message after the other, `ended` gives those that have ended since."""

    def __init__(
        self,
        diffusion_um2_s: float,
        *,
        refraction_factor: float = 1.0,
        longest_s: float = LONGEST_S,
        min_length: int = MIN_LENGTH,
    ) -> None:
        self.diffusion_um2_s, self._factor = diffusion_um2_s, refraction_factor
        self._longest_s, self._min_length = longest_s, min_length
        self._count = self._done_count = 0
        self._names, self._tracks = np.empty(FIRST_ROOM, np.int64), np.empty((FIRST_ROOM, FIELDS))
        self._done_names, self._done = np.empty(FIRST_ROOM, np.int64), np.empty((FIRST_ROOM, FIELDS))
        self._seen = np.empty(FIRST_ROOM, np.bool_)
        self._places = np.empty(2 * FIRST_ROOM, np.int64)

    def drop(self) -> None:
        """Forget all tracks, alive and ended: the flow is another one from now on."""
        self._count = self._done_count = 0

    def __len__(self) -> int:
        return self._count

    def warmup(self) -> None:
        """Compile, or load what was compiled; for tables that came by message too. Before the first frame."""
        table = np.empty((len(Tracks.COLUMNS), 0))
        for writeable in (True, False):
            table.flags.writeable = writeable
            self.take_in(Tracks(FrameInfo("", 0, 0, 0.0, 0, 0.0), table))

    def take_in(self, tracks: Tracks) -> None:
        """Take in the rows of one frame. Rows that are predictions, or without a height, are left out."""
        info = tracks.info
        focus_um = info.focus_um if math.isfinite(info.focus_um) else 0.0
        self._make_room(len(tracks))
        self._count, self._done_count = follow_frame(
            self._names, self._tracks, self._count, tracks.table, info.time_s, focus_um, self._factor,
            self.diffusion_um2_s, self._longest_s, PREDICTED, self._done_names, self._done, self._done_count,
            self._places, self._seen,
        )  # fmt: skip

    def _make_room(self, more: int) -> None:
        """Room for so many more tracks, and for all of them to end."""
        most = self._count + more
        if most > self._names.size:
            room = 2 * most
            self._names, self._tracks = _larger(self._names, room), _larger(self._tracks, room)
            self._seen = np.empty(room, np.bool_)
            self._places = np.empty(2 ** math.ceil(math.log2(2 * room)), np.int64)
        if self._done_count + most > self._done_names.size:
            room = 2 * (self._done_count + most)
            self._done_names, self._done = _larger(self._done_names, room), _larger(self._done, room)

    def ended(self) -> TrackVelocities:
        """What has ended, or was handed over at `longest_s`, since the last call, in this order."""
        done = self._done[: self._done_count]
        flags = done[:, FLAGS].astype(np.int64)
        counts = np.flatnonzero((done[:, DETECTIONS] >= self._min_length) & ((flags & NOT_COUNTED) == 0))
        names, facts = self._done_names[counts], done[counts].T
        self._done_count = 0
        table = facts[:FIRST_S].reshape(ROWS, AXES, counts.size)
        velocity, velocity_sigma = velocity_of(table)
        place, place_sigma = place_of(table)
        duration = facts[LAST_S] - facts[FIRST_S]
        spread = np.broadcast_to(facts[DIFFUSION] * duration / 3.0, place.shape).copy()
        return TrackVelocities(
            names, facts[FIRST_S] + duration / 2.0, duration, facts[DETECTIONS].astype(np.int64),
            place, place_sigma, spread, velocity, velocity_sigma,
        )  # fmt: skip


def _larger(array: npt.NDArray[np.generic], room: int) -> npt.NDArray[np.generic]:
    larger = np.empty((room, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
