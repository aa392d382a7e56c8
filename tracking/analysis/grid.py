"""Velocity field on a grid with its standard error, from one velocity for each trajectory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracking.analysis.velocity import CLIP, velocity_profile

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class VelocityField:
    """Velocities and their standard errors, um/s, and numbers of trajectories, (A, B) each.

    `a_edges_um` (A + 1,) and `b_edges_um` (B + 1,) bound the cells; a cell with fewer than two trajectories is
    NaN. `a_um` and `b_um` (A, B) are the mean positions of the trajectories in each cell.
    """

    a_edges_um: FloatArray
    b_edges_um: FloatArray
    a_um: FloatArray
    b_um: FloatArray
    velocity_um_s: FloatArray
    standard_error_um_s: FloatArray
    tracks: npt.NDArray[np.int64]


def velocity_field(
    a_um: npt.ArrayLike,
    b_um: npt.ArrayLike,
    velocity_um_s: npt.ArrayLike,
    a_edges_um: npt.ArrayLike,
    b_edges_um: npt.ArrayLike,
    sigma_um_s: npt.ArrayLike | None = None,
    clip: float | None = CLIP,
) -> VelocityField:
    """Average velocities (M,) of trajectories at `a_um`, `b_um` (M,) in the cells of a grid.

    Weights, standard errors and outliers are those of `velocity_profile` in each cell.
    """
    a, b = np.asarray(a_um, np.float64), np.asarray(b_um, np.float64)
    velocity = np.asarray(velocity_um_s, np.float64)
    sigma = np.zeros_like(velocity) if sigma_um_s is None else np.asarray(sigma_um_s, np.float64)
    a_edges, b_edges = np.asarray(a_edges_um, np.float64), np.asarray(b_edges_um, np.float64)
    shape = (a_edges.size - 1, b_edges.size - 1)
    mean_a, mean_b, mean, error = (np.full(shape, np.nan) for _ in range(4))
    tracks = np.zeros(shape, np.int64)
    strip = np.searchsorted(b_edges, b, side="right") - 1
    for column in range(shape[1]):
        rows = np.flatnonzero(strip == column)
        profile = velocity_profile(a[rows], velocity[rows], sigma[rows], a_edges, clip)
        line = np.searchsorted(a_edges, profile.height_um, side="right") - 1
        mean_a[line, column] = profile.height_um
        mean[line, column] = profile.velocity_um_s
        error[line, column] = profile.standard_error_um_s
        tracks[line, column] = profile.tracks
        used = rows[profile.used]
        place = np.searchsorted(a_edges, a[used], side="right") - 1
        count = np.maximum(np.bincount(place, minlength=shape[0]), 1)
        inside = tracks[:, column] > 0
        mean_b[inside, column] = (np.bincount(place, b[used], shape[0]) / count)[inside]
    return VelocityField(a_edges, b_edges, mean_a, mean_b, mean, error, tracks)
