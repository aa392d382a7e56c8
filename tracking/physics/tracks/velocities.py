"""One velocity for each track, with the covariances that a fit needs."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from stream.errors import ConfigurationError
from tracking.physics.diffusion.estimate import diffusion_of
from tracking.physics.tracks.information import (
    ROWS,
    first_detection,
    next_detection,
    place_of,
    velocity_of,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_LENGTH = 5
"""Detections that a track must have, if not given. Weights make longer ones count as much as they know, so that a
larger number gains little; below it, many tracks are of ghost particles."""
SMALLEST_ERROR_UM = 1e-3
"""Where detections without standard errors scatter less than this, um: no image is located better."""


@dataclass(frozen=True, slots=True, eq=False)
class TrackVelocities:
    """One entry for each track, M in all; axes are x, y and height.

    `position_um` (3, M) is the mean position, `position_sigma_um` its standard error, `spread_um2` (3, M) the
    variance of the true positions about their mean. `velocity_um_s` (3, M) with `velocity_sigma_um_s` is the mean
    velocity. `time_s` is the middle of the track, `duration_s` its length in time, `length` its number of
    detections.
    """

    track: IntArray
    time_s: FloatArray
    duration_s: FloatArray
    length: IntArray
    position_um: FloatArray
    position_sigma_um: FloatArray
    spread_um2: FloatArray
    velocity_um_s: FloatArray
    velocity_sigma_um_s: FloatArray

    def __len__(self) -> int:
        return self.track.size

    def chosen(self, which: npt.NDArray[np.bool_] | IntArray) -> TrackVelocities:
        """Only some of the tracks."""
        return TrackVelocities(*(getattr(self, f.name)[..., which] for f in fields(self)))


def joined(parts: list[TrackVelocities]) -> TrackVelocities:
    """All tracks of several parts (at least one)."""
    if len(parts) == 1:
        return parts[0]
    return TrackVelocities(
        *(np.concatenate([getattr(part, f.name) for part in parts], axis=-1) for f in fields(TrackVelocities))
    )


def track_velocities(
    track: npt.ArrayLike,
    time_s: npt.ArrayLike,
    position_um: npt.ArrayLike,
    sigma_um: npt.ArrayLike,
    diffusion_um2_s: float | None = None,
    *,
    min_length: int = MIN_LENGTH,
    longest_s: float = math.inf,
) -> TrackVelocities:
    """Maximum-likelihood velocity of each track with at least `min_length` (>= 2) detections.

    `position_um` (3, N) are x, y and height of the detections (N,), in any order, and `sigma_um` (3, N) their
    standard errors. Where these are not finite and above 0, the scatter of the displacements takes their place.
    `diffusion_um2_s` is estimated from that too if it is not given. Tracks longer than `longest_s` are cut into
    pieces, so that the velocities are of a time. Detections without a finite position are left out.

    Raises `ConfigurationError` if the lengths differ.
    """
    names, times = np.asarray(track).astype(np.int64), np.asarray(time_s, np.float64)
    places, sigmas = np.asarray(position_um, np.float64), np.asarray(sigma_um, np.float64)
    if not (places.shape == sigmas.shape == (3, *names.shape) and times.shape == names.shape):
        raise ConfigurationError(
            "tracks, times, positions and standard errors differ in length; give one of each for a detection"
        )
    known = np.isfinite(places).all(axis=0) & np.isfinite(times)
    order = np.lexsort((times[known], names[known]))
    names, times = names[known][order], times[known][order]
    places, sigmas = places[:, known][:, order], sigmas[:, known][:, order]
    new = np.append(True, (np.diff(names) != 0) | (np.diff(times) <= 0))[: names.size]
    if math.isfinite(longest_s):
        first = np.maximum.accumulate(np.where(new, np.arange(names.size), 0))
        piece = np.floor((times - times[first]) / longest_s)
        new |= np.append(False, np.diff(piece) != 0)[: names.size]
    start = np.flatnonzero(new)
    length = np.diff(np.append(start, names.size))
    kept = np.flatnonzero(length >= max(min_length, 2))
    kept = kept[np.argsort(-length[kept], kind="stable")]
    start, length = start[kept], length[kept]
    stated = np.isfinite(sigmas) & (sigmas > 0)
    if diffusion_um2_s is None or not stated.all():
        diffusion, error = _scatter(np.cumsum(new), times, places)
        sigmas = np.where(stated, sigmas, error[:, None])
    if diffusion_um2_s is not None:
        diffusion = diffusion_um2_s

    table = np.empty((ROWS, 3, start.size))
    table[:] = first_detection(places[:, start], sigmas[:, start])
    for step in range(1, int(length.max(initial=0))):
        alive = int(np.searchsorted(-length, -step, side="left"))
        row = start[:alive] + step
        next_detection(
            table[:, :, :alive], times[row] - times[row - 1], places[:, row], sigmas[:, row], diffusion
        )
    velocity, velocity_sigma = velocity_of(table)
    place, place_sigma = place_of(table)
    duration = times[start + length - 1] - times[start] if start.size else np.empty(0)
    spread = np.broadcast_to(diffusion * duration / 3.0, place.shape).copy()
    found = TrackVelocities(
        names[start], times[start] + duration / 2.0, duration, length, place, place_sigma, spread,
        velocity, velocity_sigma,
    )  # fmt: skip
    return found.chosen(np.lexsort((found.time_s, found.track)))


def _scatter(names: IntArray, times: FloatArray, places: FloatArray) -> tuple[float, FloatArray]:
    """Diffusion coefficient, um2/s, from y, and localisation error of each axis, um, (3,), of these tracks.

    Along the flow velocities change across a track, and heights are measured less well: y is the best axis. By
    covariance or likelihood, as suits (`tracking.physics.diffusion.estimate`). 0 where nothing tells D.
    """
    found = diffusion_of(names, times, places, kinds=False)
    d = found.axes[1].um2_s
    error = np.array([axis.localisation_um for axis in found.axes])
    return d if math.isfinite(d) and d > 0 else 0.0, np.where(
        np.isfinite(error), np.maximum(error, SMALLEST_ERROR_UM), 1.0
    )
