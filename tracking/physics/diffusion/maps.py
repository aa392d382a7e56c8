"""D by track and by place, and its value far from the walls of a channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracking.physics.diffusion.averages import averaged
from tracking.physics.diffusion.covariance import Moments, moments, solve
from tracking.physics.diffusion.estimate import DiffusionResult
from tracking.physics.diffusion.walls import between_walls

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEWEST = 30
"""Displacements in a cell from which its D is given: it is then known to about 40 %."""
FEWEST_TRACKS = 5
"""Tracks in a cell from which its D by means over frames is given: each has few of these, so that displacements
alone do not say how many particles it is from."""
HEIGHT_AXIS = 2


@dataclass(frozen=True, slots=True, eq=False)
class DiffusionByTrack:
    """D of each track, um^2/s: `um2_s` (axes, T; NaN along an axis that the sums do not tell) and the mean (T,),
    in which the axes have the weights that they have in D of all tracks, with standard errors.

    Standard errors are those of theory for the D of all tracks together, since a track's own D is too uncertain to
    say how uncertain it is. `kind` (T,) is the kind of `Populations`, -1 where it was not judged.
    """

    track: IntArray
    displacements: IntArray
    um2_s: FloatArray
    standard_error_um2_s: FloatArray
    mean_um2_s: FloatArray
    mean_standard_error_um2_s: FloatArray
    kind: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class DiffusionMap:
    """D in cells: `um2_s` (axes, cells) with its standard error, NaN in cells with too few displacements.

    `in_plane_um2_s` (cells,) is the mean of the axes of `DiffusionResult.in_plane`, with its standard error.
    `place_um` (axes, cells) is the mean position, `displacements` and `tracks` (cells,) are how many.
    """

    um2_s: FloatArray
    standard_error_um2_s: FloatArray
    in_plane_um2_s: FloatArray
    in_plane_standard_error_um2_s: FloatArray
    place_um: FloatArray
    displacements: IntArray
    tracks: IntArray


def by_track(result: DiffusionResult) -> DiffusionByTrack:
    """D of each track that has at least three displacements."""
    names, group = np.unique(result.segments.track, return_inverse=True)
    found = solve(result.sums, group.reshape(-1), names.size, exposure_s=result.exposure_s)
    d, error = found.um2_s.copy(), found.standard_error_um2_s.copy()
    usable = np.isfinite(error).all(axis=0) & (found.steps >= 3)
    mean = result.weight @ d
    mean_error = np.sqrt(result.weight**2 @ error**2)
    d[~result.known] = error[~result.known] = np.nan
    kind = np.full(names.size, -1, np.int64)
    if result.populations is not None:
        judged = np.searchsorted(names, result.populations.track)
        kind[judged] = result.populations.kind
    return DiffusionByTrack(
        names[usable],
        found.steps[usable],
        d[:, usable],
        error[:, usable],
        mean[usable],
        mean_error[usable],
        kind[usable],
    )


def in_cells(result: DiffusionResult, cell_of: Callable[[FloatArray], IntArray], cells: int) -> DiffusionMap:
    """D in cells; `cell_of` gives that of segments at places (axes, K), from 0, -1: none.

    Along an axis whose errors last over frames D is from means over frames.
    """
    segments = result.segments
    cell = cell_of(segments.place_um)
    found = solve(result.sums, cell, cells, exposure_s=result.exposure_s)
    d, error = found.um2_s.copy(), found.standard_error_um2_s.copy()
    few = found.steps < FEWEST
    d[:, few] = error[:, few] = np.nan
    for axis in _of_means(result):
        sums, where = sums_along(result, axis)
        means = solve(sums, cell_of(where), cells)
        known = (means.steps >= FEWEST) & (means.tracks >= FEWEST_TRACKS)
        d[axis] = np.where(known, means.um2_s[0], np.nan)
        error[axis] = np.where(known, means.standard_error_um2_s[0], np.nan)
    d[~result.known] = error[~result.known] = np.nan
    plane = np.flatnonzero(result.in_plane)
    some = max(plane.size, 1)
    inside = cell >= 0
    number = np.maximum(np.bincount(cell[inside], segments.steps[inside], cells), 1)
    weighted = segments.place_um[:, inside] * segments.steps[inside]
    place = np.stack([np.bincount(cell[inside], row, cells) for row in weighted]) / number
    place[:, found.steps == 0] = np.nan
    in_plane = d[plane].sum(axis=0) / some if plane.size else np.full(cells, np.nan)
    in_plane_error = np.sqrt((error[plane] ** 2).sum(axis=0)) / some if plane.size else np.full(cells, np.nan)
    return DiffusionMap(d, error, in_plane, in_plane_error, place, found.steps, found.tracks)


def along(result: DiffusionResult, axis: int, edges_um: npt.ArrayLike) -> DiffusionMap:
    """D in bins of the position along one axis, bounded by `edges_um`."""
    edges = np.asarray(edges_um, np.float64)
    return in_cells(result, lambda place_um: _bin(place_um[axis], edges), edges.size - 1)


def sums_along(result: DiffusionResult, axis: int) -> tuple[Moments, FloatArray]:
    """The sums that D along an axis is from in a place, and the mean places (axes, K) of their segments: of single
    frames, or of means over frames where errors last over them."""
    frames = result.axes[axis].frames
    if frames == 1:
        return result.sums.along(np.array([axis])), result.segments.place_um
    means = averaged(result.longer, frames)
    return moments(means, drift=result.drift == "own").along(np.array([axis])), means.place_um


def _of_means(result: DiffusionResult) -> list[int]:
    """The axes whose errors last over frames."""
    return [at for at, axis in enumerate(result.axes) if axis.frames > 1]


def _bin(values: FloatArray, edges: FloatArray) -> IntArray:
    which = np.searchsorted(edges, values, side="right") - 1
    which[values == edges[-1]] = edges.size - 2
    return np.where((which >= 0) & (which < edges.size - 1), which, -1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class FarFromWalls:
    """D far from the walls, um^2/s, with its standard error, and the mean of D in the channel over it."""

    um2_s: float
    standard_error_um2_s: float
    mean_factor: float


def far_from_walls(
    result: DiffusionResult, radius_um: float, floor_um: float, ceiling_um: float | None
) -> FarFromWalls | None:
    """D that the particles would have far from walls; None in 2D.

    Each segment is compared with what the walls leave of D at its mean height: along them (Faxen) for x and y,
    of which those of `DiffusionResult.in_plane` count.
    """
    segments = result.segments
    if len(segments.place_um) <= HEIGHT_AXIS:
        return None
    plane = np.flatnonzero(result.in_plane)
    if plane.size == 0:
        return None
    d, error = np.empty((2, plane.size))
    for at, axis in enumerate(plane):
        sums, where = sums_along(result, int(axis))
        along_them, _ = between_walls(where[HEIGHT_AXIS], radius_um, floor_um, ceiling_um)
        found = solve(sums, exposure_s=result.exposure_s, factor=along_them[None])
        d[at], error[at] = found.um2_s[0, 0], found.standard_error_um2_s[0, 0]
    parallel, _ = between_walls(segments.place_um[HEIGHT_AXIS], radius_um, floor_um, ceiling_um)
    mean = float((parallel * segments.steps).sum() / max(segments.steps.sum(), 1))
    return FarFromWalls(float(d.mean()), float(np.sqrt((error**2).sum()) / plane.size), mean)
