"""What a track says of its velocity, updated detection by detection.

A particle drifts with the unknown velocity v, takes Brownian steps of variance 2 D dt, and is seen with a
localisation error. The maximum-likelihood v and its variance given D follow from a Kalman filter for the position
that also carries how its mean depends on v (regression in state space; de Jong, Ann. Statist. 19, 1073, 1991). They
are those of generalised least squares with the tridiagonal covariance of the displacements, at a fixed cost for
each detection.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

MEAN, VARIANCE, LAG, INFORMATION, SCORE, WEIGHT, PLACE = range(7)
"""Rows of a table (ROWS, axes, tracks): filtered position if v were 0, and its variance; the time by which it lags
behind, so that it is wrong by that times v; information about v; that times the estimate; sum of 1 / sigma^2 over
the detections; that times the position."""
ROWS: Final = 7


def first_detection(position_um: FloatArray, sigma_um: FloatArray) -> FloatArray:
    """The table (ROWS, axes, tracks) of tracks with one detection, at `position_um` (axes, tracks)."""
    table = np.zeros((ROWS, *position_um.shape))
    variance = sigma_um**2
    table[MEAN], table[VARIANCE] = position_um, variance
    table[WEIGHT], table[PLACE] = 1.0 / variance, position_um / variance
    return table


def next_detection(
    table: FloatArray, dt_s: FloatArray, position_um: FloatArray, sigma_um: FloatArray, diffusion_um2_s: float
) -> None:
    """Take in one more detection of each track, `dt_s` (tracks,) after the last one. Changes `table`."""
    variance = sigma_um**2
    moved = table[LAG] + dt_s
    predicted = table[VARIANCE] + 2.0 * diffusion_um2_s * dt_s
    innovation = position_um - table[MEAN]
    spread = predicted + variance
    table[INFORMATION] += moved**2 / spread
    table[SCORE] += moved * innovation / spread
    gain = predicted / spread
    table[MEAN] += gain * innovation
    table[LAG] = (1.0 - gain) * moved
    table[VARIANCE] = gain * variance
    table[WEIGHT] += 1.0 / variance
    table[PLACE] += position_um / variance


def velocity_of(table: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Velocity and its standard error, um/s, (axes, tracks) each; not finite where nothing is known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return table[SCORE] / table[INFORMATION], 1.0 / np.sqrt(table[INFORMATION])


def place_of(table: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean position and its standard error from the localisation errors, um, (axes, tracks) each."""
    return table[PLACE] / table[WEIGHT], 1.0 / np.sqrt(table[WEIGHT])
