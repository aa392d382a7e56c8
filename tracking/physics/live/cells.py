"""Velocities of any number of tracks, merged into cells over the section, with a memory."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tracking.physics.tracks.velocities import TrackVelocities

FloatArray = npt.NDArray[np.float64]

CELLS_Y, CELLS_Z, CELLS_X = 16, 20, 2
"""Cells across, up and along. Within one, the velocity is taken to second order about its mean place: in a
rectangle of 4 to 1 that leaves 1e-5 of the maximum velocity. Two along tell the tilt; more cost time."""
MARGIN = 0.1
"""How far cells reach beyond the section, over its size: tracks are measured there, and the walls may move."""
SUM, VELOCITY, PLACE, SQUARE, SPREAD, COUNT = 0, 1, 2, 3, 4, 5
"""Rows of sums, (6, 3, cells): weight; times velocity; place, its square, spread in place (weighted by what is
known of the velocity along the flow), and how many tracks."""


class Cells:
    """Sums over tracks by cell. With a memory, what came in long ago weighs less."""

    def __init__(self, low_um: FloatArray, high_um: FloatArray) -> None:
        """The box (3,) of x, y and height that the cells fill; what lies beyond counts in the outermost ones."""
        margin = MARGIN * (high_um - low_um)
        self._low, self._high = low_um - margin, high_um + margin
        self._number = np.array([CELLS_X, CELLS_Y, CELLS_Z])
        self._sums = np.zeros((6, 3, int(self._number.prod())))

    def forget(self, elapsed_s: float, memory_s: float) -> None:
        """Let all that is known lose weight."""
        if math.isfinite(memory_s):
            self._sums *= math.exp(-elapsed_s / memory_s)

    def add(
        self,
        tracks: TrackVelocities,
        place_um: FloatArray,
        place_variance: FloatArray,
        variance: FloatArray,
        follows: FloatArray,
    ) -> None:
        """Take in tracks with the `variance` (3, M) of their velocities and the probability that they follow.

        `place_um` (3, M) is where they are expected in the image's axes, with `place_variance` (3, M).
        """
        share = (place_um - self._low[:, None]) / (self._high - self._low)[:, None]
        cell = np.clip((share * self._number[:, None]).astype(np.int64), 0, self._number[:, None] - 1)
        index = np.ravel_multi_index(tuple(cell), tuple(self._number))
        weight = follows / variance
        known = weight[0]  # the flow is along x, nearly: what is known of it there
        terms = np.stack(
            [
                weight,
                weight * tracks.velocity_um_s,
                known * place_um,
                known * place_um**2,
                known * (place_variance + tracks.spread_um2),
                np.broadcast_to(follows, weight.shape),
            ]
        )
        size = self._sums.shape[2]
        for row in range(6):
            for axis in range(3):
                self._sums[row, axis] += np.bincount(index, terms[row, axis], size)

    def merged(self) -> TrackVelocities:
        """One entry for each cell with tracks, as if it were a track whose place is known exactly."""
        filled = self._sums[COUNT, 0] > 0.5
        sums = self._sums[:, :, filled]
        weight = sums[SUM]
        place = sums[PLACE] / weight[0]
        spread = np.maximum(sums[SQUARE] / weight[0] - place**2, 0.0) + sums[SPREAD] / weight[0]
        nothing = np.zeros(int(filled.sum()))
        return TrackVelocities(
            np.flatnonzero(filled), nothing, nothing, np.round(sums[COUNT, 0]).astype(np.int64), place,
            np.zeros_like(place), spread, sums[VELOCITY] / weight, 1.0 / np.sqrt(weight),
        )  # fmt: skip
