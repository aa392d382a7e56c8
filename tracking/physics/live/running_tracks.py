"""What the tracks of a run say of their velocities so far, updated frame by frame."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from stream.messages import TrackFlag, Tracks
from tracking.physics.tracks.information import (
    ROWS,
    first_detection,
    next_detection,
    place_of,
    velocity_of,
)
from tracking.physics.tracks.velocities import MIN_LENGTH, TrackVelocities

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LONGEST_S = 4.0
"""Age, s, at which a track that goes on is handed over and begun anew, so that its news are not older. Where random
steps limit the velocities nothing is lost; where localisation does, a track of twice the length would know it 2.8
times better."""
FIRST, LAST, DETECTIONS, FLAGS, OVER = range(5)
"""Facts of a track: time of its first and last detection, their number, flags of the last one, whether it is
over."""
FIRST_ROOM = 256
SAYS_NOTHING_UM = 1e120
"""Standard error of a detection that changes nothing; its square is still a number."""
NEEDED = np.array(
    [
        Tracks.COLUMNS.index(name)
        for name in (
            "track", "x_um", "y_um", "z_um", "sigma_x_um", "sigma_y_um", "sigma_z_um", "time_offset_s", "flags"
        )
    ]
)  # fmt: skip
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
        self._count = 0
        # The first `_count` columns are in use, in order of track number; those that are over go at `ended`.
        self._track: IntArray = np.empty(FIRST_ROOM, np.int64)
        self._table: FloatArray = np.empty((ROWS, 3, FIRST_ROOM))
        self._facts: FloatArray = np.empty((5, FIRST_ROOM))
        self._ended: list[TrackVelocities] = []

    def drop(self) -> None:
        """Forget all tracks, alive and ended: the flow is another one from now on."""
        self._count, self._ended = 0, []

    def __len__(self) -> int:
        return int((self._facts[OVER, : self._count] == 0).sum())

    def take_in(self, tracks: Tracks) -> None:
        """Take in the rows of one frame. Rows that are predictions, or without a height, are left out."""
        focus_um = tracks.info.focus_um if math.isfinite(tracks.info.focus_um) else 0.0
        order = np.argsort(tracks.track, kind="stable")
        rows = np.take(tracks.table[NEEDED], order, axis=1)
        name = rows[0].astype(np.int64)
        used = self._track[: self._count]
        at = np.searchsorted(used, name)
        known = at < self._count
        known[known] = used[at[known]] == name[known]
        gone = self._facts[OVER, : self._count] == 0
        gone[at[known]] = False
        self._hand_over(np.flatnonzero(gone))
        self._facts[OVER, : self._count][gone] = 1.0
        position, sigma = rows[1:4], rows[4:7]
        position[2] = self._factor * (focus_um + position[2])
        sigma[2] *= self._factor
        time_s = tracks.info.time_s + np.nan_to_num(rows[7])
        measured = (rows[8].astype(np.int64) & PREDICTED) == 0
        measured &= (
            np.isfinite(position.sum(axis=0)) & np.isfinite(sigma.sum(axis=0)) & (sigma > 0).all(axis=0)
        )
        row = np.flatnonzero(known & measured)
        row = row[time_s[row] > self._facts[LAST, at[row]]]
        at = at[row]
        # All columns at once, without copying the table: who is not seen gets a detection that says nothing.
        count = self._count
        dt_s, places, sigmas = np.zeros(count), np.zeros((3, count)), np.full((3, count), SAYS_NOTHING_UM)
        dt_s[at] = time_s[row] - self._facts[LAST, at]
        places[:, at], sigmas[:, at] = position[:, row], sigma[:, row]
        next_detection(self._table[:, :, :count], dt_s, places, sigmas, self.diffusion_um2_s)
        self._facts[LAST, at] = time_s[row]
        self._facts[DETECTIONS, at] += 1
        self._facts[FLAGS, at] = rows[8, row]
        old = self._facts[LAST, at] - self._facts[FIRST, at] >= self._longest_s
        if old.any():
            self._hand_over(at[old])
            self._place(
                at[old], position[:, row[old]], sigma[:, row[old]], time_s[row[old]], rows[8, row[old]]
            )
        self._begin(np.flatnonzero(~known & measured), name, position, sigma, time_s, rows[8])

    def _begin(
        self,
        row: IntArray,
        name: IntArray,
        position: FloatArray,
        sigma: FloatArray,
        time_s: FloatArray,
        flags: FloatArray,
    ) -> None:
        if not row.size:
            return
        count = self._count + row.size
        while count > self._track.size:
            self._track = np.append(self._track, np.empty_like(self._track))
            self._table = np.concatenate([self._table, np.empty_like(self._table)], axis=2)
            self._facts = np.hstack([self._facts, np.empty_like(self._facts)])
        at = np.arange(self._count, count)
        self._track[at] = name[row]
        self._place(at, position[:, row], sigma[:, row], time_s[row], flags[row])
        self._count = count
        if row.size < count and self._track[at[0]] < self._track[at[0] - 1]:
            self._keep(np.argsort(self._track[:count], kind="stable"))

    def _place(
        self, at: IntArray, position: FloatArray, sigma: FloatArray, time_s: FloatArray, flags: FloatArray
    ) -> None:
        """Begin tracks in these columns with one detection each."""
        self._table[:, :, at] = first_detection(position, sigma)
        self._facts[:, at] = np.stack([time_s, time_s, np.ones(at.size), flags, np.zeros(at.size)])

    def _keep(self, columns: IntArray) -> None:
        count = columns.size
        self._track[:count] = self._track[columns]
        self._table[:, :, :count] = self._table[:, :, columns]
        self._facts[:, :count] = self._facts[:, columns]
        self._count = count

    def _hand_over(self, columns: IntArray) -> None:
        """Note the velocities of those among these tracks that count."""
        facts = self._facts[:, columns]
        counts = (facts[DETECTIONS] >= self._min_length) & (
            (facts[FLAGS].astype(np.int64) & NOT_COUNTED) == 0
        )
        columns, facts = columns[counts], facts[:, counts]
        if not columns.size:
            return
        table = self._table[:, :, columns]
        velocity, velocity_sigma = velocity_of(table)
        place, place_sigma = place_of(table)
        duration = facts[LAST] - facts[FIRST]
        spread = np.broadcast_to(self.diffusion_um2_s * duration / 3.0, place.shape).copy()
        self._ended.append(
            TrackVelocities(
                self._track[columns], facts[FIRST] + duration / 2.0, duration, facts[DETECTIONS].astype(np.int64),
                place, place_sigma, spread, velocity, velocity_sigma,
            )
        )  # fmt: skip

    def ended(self) -> list[TrackVelocities]:
        """What has ended, or was handed over at `longest_s`, since the last call; a frame's in each entry."""
        self._keep(np.flatnonzero(self._facts[OVER, : self._count] == 0))
        ended, self._ended = self._ended, []
        return ended
