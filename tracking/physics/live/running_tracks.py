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
        self._diffusion, self._factor = diffusion_um2_s, refraction_factor
        self._longest_s, self._min_length = longest_s, min_length
        self._track: IntArray = np.empty(0, np.int64)
        self._table: FloatArray = np.empty((ROWS, 3, 0))
        # first and last time, number of detections, and the flags of the last one
        self._facts: FloatArray = np.empty((4, 0))
        self._ended: list[TrackVelocities] = []

    def __len__(self) -> int:
        return self._track.size

    def take_in(self, tracks: Tracks) -> None:
        """Take in the rows of one frame. Rows that are predictions, or without a height, are left out."""
        focus_um = tracks.info.focus_um if math.isfinite(tracks.info.focus_um) else 0.0
        order = np.argsort(tracks.track, kind="stable")
        rows = tracks.table[np.ix_(NEEDED, order)]
        name = rows[0].astype(np.int64)
        gone = np.ones(self._track.size, np.bool_)
        at = np.searchsorted(self._track, name)
        known = at < self._track.size
        known[known] = self._track[at[known]] == name[known]
        gone[at[known]] = False
        if gone.any():
            at = at - np.cumsum(np.append(0, gone))[at]
            self._end(gone)
        position, sigma = rows[1:4], rows[4:7]
        position[2] = self._factor * (focus_um + position[2])
        sigma[2] *= self._factor
        time_s = tracks.info.time_s + np.nan_to_num(rows[7])
        flags = rows[8].astype(np.int64)
        measured = (flags & PREDICTED) == 0
        measured &= (
            np.isfinite(position.sum(axis=0)) & np.isfinite(sigma.sum(axis=0)) & (sigma > 0).all(axis=0)
        )
        self._continue(at, known & measured, position, sigma, time_s, flags)
        new = ~known & measured
        self._begin(name[new], position[:, new], sigma[:, new], time_s[new], flags[new])
        self._end(self._facts[1] - self._facts[0] >= self._longest_s)

    def _continue(
        self,
        at: IntArray,
        chosen: npt.NDArray[np.bool_],
        position: FloatArray,
        sigma: FloatArray,
        time_s: FloatArray,
        flags: IntArray,
    ) -> None:
        """Add the `chosen` detections to the tracks `at` which they belong."""
        row = np.flatnonzero(chosen)
        row = row[time_s[row] > self._facts[1, at[row]]]
        at = at[row]
        dt_s = time_s[row] - self._facts[1, at]
        if at.size == self._track.size == position.shape[1]:  # all go on: nothing has to be copied
            next_detection(self._table, dt_s, position, sigma, self._diffusion)
        else:
            table = self._table[:, :, at]
            next_detection(table, dt_s, position[:, row], sigma[:, row], self._diffusion)
            self._table[:, :, at] = table
        self._facts[1, at] = time_s[row]
        self._facts[2, at] += 1
        self._facts[3, at] = flags[row]

    def _begin(
        self, name: IntArray, position: FloatArray, sigma: FloatArray, time_s: FloatArray, flags: IntArray
    ) -> None:
        if not name.size:
            return
        track = np.append(self._track, name)
        table = np.concatenate([self._table, first_detection(position, sigma)], axis=2)
        facts = np.hstack([self._facts, np.stack([time_s, time_s, np.ones(name.size), flags])])
        order = np.argsort(track, kind="stable")
        self._track, self._table, self._facts = track[order], table[:, :, order], facts[:, order]

    def _end(self, over: npt.NDArray[np.bool_]) -> None:
        if not over.any():
            return
        counts = over & (self._facts[2] >= self._min_length)
        counts &= (self._facts[3].astype(np.int64) & NOT_COUNTED) == 0
        if counts.any():
            self._ended.append(self._velocities(counts))
        self._track, self._table, self._facts = (
            self._track[~over], self._table[:, :, ~over], self._facts[:, ~over]
        )  # fmt: skip

    def _velocities(self, which: npt.NDArray[np.bool_]) -> TrackVelocities:
        velocity, velocity_sigma = velocity_of(self._table[:, :, which])
        place, place_sigma = place_of(self._table[:, :, which])
        first, last, count = self._facts[:3, which]
        spread = np.broadcast_to(self._diffusion * (last - first) / 3.0, place.shape).copy()
        return TrackVelocities(
            self._track[which], (first + last) / 2.0, last - first, count.astype(np.int64), place, place_sigma,
            spread, velocity, velocity_sigma,
        )  # fmt: skip

    def ended(self) -> list[TrackVelocities]:
        """What has ended, or was handed over at `longest_s`, since the last call; a frame's in each entry."""
        ended, self._ended = self._ended, []
        return ended
