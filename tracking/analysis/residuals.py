"""Estimates the detector's errors from displacements relative to each trajectory's median displacement.

In a steady flow a particle's displacement is the same in every frame, so that its scatter is due to errors
(Franchini & Krevor 2020, section 3.2, Figs. 11 and 12). Functions take one row for each detection, in any order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from tracking.analysis.velocity import grouped_median

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

AXES = 3
MIN_LENGTH = 100
"""Displacements that a track must have, if not given, as in Franchini & Krevor 2020. The median of n displacements
takes away about 1/n of the variance, 1 % of 100; shorter tracks make the errors look smaller."""
FEWEST = 20
"""Displacements from which a bin of the map is shown: their standard deviation is known to a sixth."""


@dataclass(frozen=True, slots=True, eq=False)
class DisplacementResiduals:
    """Residuals: displacements between successive frames minus their track's median displacement.

    For each track (M,): its number `track`, number of `displacements`, mean `depth_um`, `error_um` (3, M), the
    standard deviation of its residuals divided by sqrt(2), because two positions make a displacement, and
    `stated_um` (3, M), the root mean square of the detections' standard errors. For each displacement (D,): `row`,
    where it begins, and `residual_um` (3, D). `ratio` (3,) is the rms of all residuals over the one expected from
    the standard errors, 1 if these are right; NaN without standard errors.
    """

    track: IntArray
    displacements: IntArray
    depth_um: FloatArray
    error_um: FloatArray
    stated_um: FloatArray
    row: IntArray
    residual_um: FloatArray
    ratio: FloatArray


def displacement_residuals(
    track: npt.ArrayLike,
    frame: npt.ArrayLike,
    positions_um: npt.ArrayLike,
    sigma_um: npt.ArrayLike,
    depth_um: npt.ArrayLike | None = None,
    min_length: int = MIN_LENGTH,
) -> DisplacementResiduals:
    """Residuals of the tracks with at least `min_length` (>= 3) displacements from one frame to the next.

    `positions_um` and `sigma_um` are (3, N), with heights instead of z if the focus moves; `depth_um` (N,), by
    default z, is only averaged. Without depth, results for z are NaN.
    """
    order = np.lexsort((np.asarray(frame), np.asarray(track)))
    name = np.asarray(track).astype(np.int64)[order]
    when = np.asarray(frame).astype(np.int64)[order]
    where = np.asarray(positions_um, np.float64).reshape(AXES, -1)[:, order]
    variance = np.asarray(sigma_um, np.float64).reshape(AXES, -1)[:, order] ** 2
    depth = where[2] if depth_um is None else np.asarray(depth_um, np.float64)[order]
    start = np.flatnonzero((np.diff(name) == 0) & (np.diff(when) == 1))
    _, group, length = np.unique(name[start], return_inverse=True, return_counts=True)
    start = start[length[group] >= max(min_length, 3)]
    if start.size == 0:
        none = np.empty((AXES, 0))
        empty = np.empty(0, np.int64)
        return DisplacementResiduals(empty, empty, none[0], none, none, empty, none, np.full(AXES, math.nan))
    number, own, count = np.unique(name[start], return_inverse=True, return_counts=True)
    step = where[:, start + 1] - where[:, start]
    residual = step - grouped_median(step, own)[:, own]
    expected = variance[:, start] + variance[:, start + 1]

    def mean(values: FloatArray) -> FloatArray:
        return np.stack([np.bincount(own, row, number.size) / count for row in np.atleast_2d(values)])

    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.sqrt((residual**2).mean(axis=1) / expected.mean(axis=1))
    return DisplacementResiduals(
        track=number,
        displacements=count.astype(np.int64),
        depth_um=mean(depth[start])[0],
        error_um=np.sqrt(mean(residual**2) / 2.0),
        stated_um=np.sqrt(mean(expected) / 2.0),
        row=order[start],
        residual_um=residual,
        ratio=ratio,
    )


def nearest_offsets(frame: npt.ArrayLike, x_um: npt.ArrayLike, y_um: npt.ArrayLike) -> FloatArray:
    """Offset in x and y to the nearest other row of the same frame, (2, N) um; infinite if there is none."""
    when = np.asarray(frame).astype(np.int64)
    points = np.column_stack([np.asarray(x_um, np.float64), np.asarray(y_um, np.float64)])
    offset = np.full((2, when.size), np.inf)
    order = np.argsort(when, kind="stable")
    cuts = np.flatnonzero(np.diff(when[order])) + 1
    for rows in np.split(order, cuts):
        if rows.size > 1:
            _, near = KDTree(points[rows]).query(points[rows], k=2)
            nearest = np.asarray(near, np.int64)[:, 1]
            offset[:, rows] = (points[rows[nearest]] - points[rows]).T
    return offset


def error_map(
    offset_um: FloatArray, residual_um: FloatArray, half_um: float, bins: int, fewest: int = FEWEST
) -> tuple[FloatArray, FloatArray]:
    """Errors by the position of the nearest neighbour: edges (bins + 1,) um, and errors (3, bins, bins) um.

    Rows of the map are y, columns x. `offset_um` (2, D) and `residual_um` (3, D) are given for the same
    displacements; bins with fewer than `fewest` of them are NaN.
    """
    edges = np.linspace(-half_um, half_um, bins + 1)
    inside = (np.abs(offset_um) < half_um).all(axis=0)
    column, line = (np.searchsorted(edges, o[inside], side="right") - 1 for o in offset_um)
    cell = line * bins + column
    count = np.bincount(cell, minlength=bins * bins)
    squares = [np.bincount(cell, r[inside] ** 2, bins * bins) for r in residual_um]
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.where(count >= fewest, np.sqrt(np.stack(squares) / count / 2.0), np.nan)
    return edges, errors.reshape(AXES, bins, bins)
