"""Order, heights and times of the slices of one volume (pure functions)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
UNEVEN = 0.5
"""Positions whose steps differ from the distance of the slices by more than this fraction are not theirs."""


@dataclass(frozen=True, slots=True, eq=False)
class Heights:
    """`order` (depth,): the place in the file of each slice, the lowest first; `z_um` their heights above it.

    `lowest_um` is the position of the lowest slice, NaN if unknown. `upwards`: the focus rose from first to last.
    """

    order: npt.NDArray[np.int64]
    z_um: FloatArray
    lowest_um: float
    upwards: bool


def heights_of(focus_um: FloatArray, step_um: float, *, exact: bool) -> Heights:
    """The heights of the slices of a volume taken at `focus_um` (depth,), NaN where unknown.

    With `exact` slices are `step_um` apart whatever the positions, which then give only the order. Without
    positions that rise or fall steadily the order is that of the file, upwards.
    """
    depth = focus_um.size
    places = np.arange(depth)
    known = np.isfinite(focus_um)
    even_um: FloatArray = np.multiply(step_um, places, dtype=np.float64)
    moves = np.diff(focus_um[known])
    if moves.size == 0 or not ((moves > 0).all() or (moves < 0).all()):
        first = focus_um[0] if known[0] and np.ptp(focus_um[known]) == 0 else np.nan
        return Heights(places, even_um, float(first), True)
    upwards = bool(moves[0] > 0)
    order = places if upwards else places[::-1].copy()
    rising = focus_um[order]
    gaps = np.diff(places[np.isfinite(rising)])
    rises = np.diff(rising[np.isfinite(rising)]) / gaps
    lowest_um = float(_filled(rising, step_um)[0])
    if exact or (np.abs(rises / step_um - 1) > UNEVEN).any():
        return Heights(order, even_um, lowest_um, upwards)
    rising = _filled(rising, step_um)
    return Heights(order, rising - rising[0], lowest_um, upwards)


def _filled(rising: FloatArray, step_um: float) -> FloatArray:
    """Positions with those unknown from their neighbours; beyond the ends in steps of `step_um`."""
    places = np.arange(rising.size)
    known = np.flatnonzero(np.isfinite(rising))
    filled: FloatArray = np.interp(places, known, rising[known])
    first, last = known[0], known[-1]
    filled[:first] = rising[first] - step_um * (first - places[:first])
    filled[last:] = rising[last] + step_um * (places[last:] - last)
    return filled


def slice_times(stamps_s: FloatArray, order: npt.NDArray[np.int64], longest_s: float) -> tuple[float, ...]:
    """When each slice was taken, s after the first one of its volume; empty if that is not known.

    `stamps_s` (depth,) are in the order of the file, NaN for slices without an image, whose times are interpolated.
    Stamps that are all the same, or further apart than `longest_s` (the time between volumes), say nothing.
    """
    known = np.flatnonzero(np.isfinite(stamps_s))
    if 2 * known.size < stamps_s.size or known.size < 2:
        return ()
    since = stamps_s - np.min(stamps_s[known])
    moves = np.diff(since[known])
    spread = float(np.ptp(since[known]))
    if spread == 0 or spread > longest_s or not ((moves > 0).all() or (moves < 0).all()):
        return ()
    places = np.arange(stamps_s.size)
    slope = (since[known[-1]] - since[known[0]]) / (known[-1] - known[0])
    filled = np.interp(places, known, since[known])
    filled[: known[0]] = since[known[0]] - slope * (known[0] - places[: known[0]])
    filled[known[-1] :] = since[known[-1]] + slope * (places[known[-1] :] - known[-1])
    return tuple(float(value) for value in filled[order])
