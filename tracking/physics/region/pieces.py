"""Cuts tracks into pieces over which the velocity of a particle changes little, with the path of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tracking.physics.region.geometry import Region
from tracking.physics.tracks.velocities import MIN_LENGTH, TrackVelocities, track_velocities

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LONGEST = 0.5
"""Path of a piece, over the depth or the narrowest opening, whichever is less. Longer pieces would know the
velocity better where localisation errors are large, but the flow is another one at both of their ends."""
POINTS = 9
"""Places kept of the path of each piece: means of detections, and of places half-way, that follow each other. As
many as the shortest pieces have."""
SMALLEST_RATIO = 1e-6
"""Of Brownian motion in a frame over the localisation error, variances: below it the motion does not count."""


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """M pieces: their `velocities` with the names of their tracks, and their paths.

    The measured velocity is that of the flow at `path_um` (2, POINTS, M), x and y, times `share` (POINTS, M).
    """

    velocities: TrackVelocities
    path_um: FloatArray
    share: FloatArray

    def chosen(self, which: npt.NDArray[np.bool_] | IntArray) -> Pieces:
        """Only some of the pieces."""
        return Pieces(self.velocities.chosen(which), self.path_um[..., which], self.share[..., which])


def pieces_of(
    region: Region,
    track: npt.ArrayLike,
    time_s: npt.ArrayLike,
    position_um: npt.ArrayLike,
    sigma_um: npt.ArrayLike,
    diffusion_um2_s: float | None = None,
) -> Pieces:
    """As `track_velocities`, with a velocity for each piece of a track of at least `MIN_LENGTH` detections.

    A track is cut into parts with about as many detections each. Raises `ConfigurationError` if the lengths differ.
    """
    names, times = np.asarray(track).astype(np.int64), np.asarray(time_s, np.float64)
    places, sigma = np.asarray(position_um, np.float64), np.asarray(sigma_um, np.float64)
    known = np.isfinite(places).all(axis=0) & np.isfinite(times)
    order = np.flatnonzero(known)[np.lexsort((times[known], names[known]))]
    names, times, places, sigma = names[order], times[order], places[:, order], sigma[:, order]
    own, start, length = np.unique(names, return_index=True, return_counts=True)
    ends = places[:2, start + length - 1] - places[:2, start]
    widths = [float(np.linalg.norm(np.subtract(*region.side_um(side)))) for _, side in region.openings]
    longest_um = LONGEST * min(region.depth_um, *widths)
    wanted = np.ceil(np.linalg.norm(ends, axis=0) / longest_um).astype(np.int64)
    count = np.clip(wanted, 1, np.maximum(length // MIN_LENGTH, 1))
    of = np.repeat(np.arange(own.size), length)
    rank = np.arange(names.size) - start[of]
    first = np.concatenate([[0], np.cumsum(count)])
    piece = first[of] + rank * count[of] // length[of]
    found = track_velocities(piece, times, places, sigma, diffusion_um2_s)
    path, share = _paths(piece, places[:2], found)
    return Pieces(
        replace(found, track=own[np.searchsorted(first, found.track, side="right") - 1]), path, share
    )


def _paths(piece: IntArray, seen_um: FloatArray, found: TrackVelocities) -> tuple[FloatArray, FloatArray]:
    """Paths (2, POINTS, M) and shares (POINTS, M) from the places x, y (2, N) of detections, ordered by piece.

    The most likely velocity is a weighted mean of the displacements. With the variance a of the Brownian motion
    in a frame and s^2 of the localisation, that of displacement i of n - 1 counts
    1 - cosh(k (i - n / 2)) / cosh(k n / 2) with 2 cosh k = 2 + a / s^2 (the solution of the tridiagonal equations
    of `tracking.physics.tracks.information` for even times and errors): all the same if Brownian motion is large,
    a parabola if it is small.
    """
    names, start, length = np.unique(piece, return_index=True, return_counts=True)
    at = np.searchsorted(names, found.track)
    start, length = start[at], length[at]
    own = np.repeat(np.arange(at.size), length)
    rank = np.arange(own.size) - np.repeat(np.concatenate([[0], np.cumsum(length)[:-1]]), length)
    row = start[own] + rank
    brownian = 2.0 * 3.0 * found.spread_um2[0] / (length - 1)  # of the D that the velocities were found with
    localised = found.position_sigma_um[0] ** 2 * length
    k = np.arccosh(1.0 + np.maximum(brownian / localised, SMALLEST_RATIO) / 2.0)[own]
    n = length[own]

    def counts(i: IntArray) -> FloatArray:
        inner = np.abs(i - n / 2.0)
        ratio = np.exp(k * (inner - n / 2.0)) * (1.0 + np.exp(-2.0 * k * inner)) / (1.0 + np.exp(-k * n))
        weight: FloatArray = 1.0 - ratio
        return weight

    # Between two detections the velocity is Simpson's mean, and the place half-way that of a cubic through four.
    seen = seen_um[:, row]
    bend = np.zeros_like(seen)
    bend[:, 1:-1] = seen[:, :-2] - 2.0 * seen[:, 1:-1] + seen[:, 2:]
    first, last = np.flatnonzero(rank == 0), np.flatnonzero(rank == n - 1)
    bend[:, first], bend[:, last] = bend[:, first + 1], bend[:, last - 1]
    before, inside = counts(rank) * (rank > 0), counts(rank + 1) * (rank < n - 1)
    half_way = (seen + np.roll(seen, -1, axis=1)) / 2.0 - (bend + np.roll(bend, -1, axis=1)) / 16.0
    share, path = np.zeros((POINTS, at.size)), np.zeros((2, POINTS, at.size))
    for step, weight, place in ((0, (before + inside) / 6.0, seen), (1, inside * 4.0 / 6.0, half_way)):
        point = np.minimum((2 * rank + step) * POINTS // (2 * n - 1), POINTS - 1)
        np.add.at(share, (point, own), weight)
        for axis in range(2):
            np.add.at(path[axis], (point, own), weight * place[axis])
    path = np.divide(path, share, out=np.zeros_like(path), where=np.broadcast_to(share > 0, path.shape))
    return path, share / share.sum(axis=0)
