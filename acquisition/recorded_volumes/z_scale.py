"""The distance between the slices of a volume, and whether it can be true."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from acquisition.stacks.scales import LEAST_UM, MOST_UM
from stream.errors import SourceError

FLATTEST, TALLEST = 1 / 30, 100.0
"""Least and greatest height of a voxel in units of its width. Between a tenth (z oversampled) and 20 (sparse light
sheets) is what microscopes take; a slip between nm, um and mm is a factor of 1000, so it lies outside."""
ODD_FLAT, ODD_TALL = 0.1, 20.0
"""Voxels flatter or taller than this are reported but read."""
AGREE = 0.1
"""The stated step and that of the measured positions may differ by this fraction: drives are better than that."""
HOW = "give --z-step UM"


class UnknownVoxelError(SourceError):
    """The size of a voxel is not known, or is impossible: the user has to give it."""


def z_step_of(
    name: str,
    stated_um: float,
    measured_um: float,
    remark: str,
    given_um: float | None,
    pixel_um: float,
) -> tuple[float, tuple[str, ...]]:
    """The distance between slices, um, and remarks about it.

    `given_um` (the user's) takes precedence over `stated_um` (that of the file) and `measured_um` (from positions
    of the planes); `remark` says what is wrong with that of the file. `pixel_um` is the width of a voxel, NaN if
    unknown.

    Raises `UnknownVoxelError`, with what to give, if the step or the width is not known, if the last two steps
    disagree, or if such voxels are not possible.
    """
    if given_um is not None:
        if not LEAST_UM <= given_um <= MOST_UM:
            raise UnknownVoxelError(
                f"a z step of {given_um:g} um is not possible; give the distance between slices, um"
            )
        if not pixel_um > 0:
            raise UnknownVoxelError(f"{name} does not say how large its pixels are; give --pixel-size UM")
        said = _shape(given_um, pixel_um)
        return given_um, (f"{said} (--z-step)",) if said else ()
    if stated_um > 0 and measured_um > 0 and not math.isclose(stated_um, measured_um, rel_tol=AGREE):
        raise UnknownVoxelError(
            f"{name} says that its slices are {stated_um:g} um apart, but their positions are {measured_um:g} um "
            f"apart; {HOW}"
        )
    step_um = stated_um if stated_um > 0 else measured_um
    if not step_um > 0:
        why = f" ({remark})" if remark else ""
        pixel = "" if pixel_um > 0 else " or how large its pixels are"
        also = "" if pixel_um > 0 else " and --pixel-size UM"
        raise UnknownVoxelError(f"{name} does not say how far its slices are apart{pixel}{why}; {HOW}{also}")
    if not pixel_um > 0:
        raise UnknownVoxelError(f"{name} does not say how large its pixels are; give --pixel-size UM")
    ratio = step_um / pixel_um
    if not FLATTEST <= ratio <= TALLEST:
        raise UnknownVoxelError(
            f"{name} says that voxels are {pixel_um:g} um wide and {step_um:g} um high, which is not possible: a "
            f"unit is wrong; {HOW} or --pixel-size UM"
        )
    said = _shape(step_um, pixel_um)
    return step_um, (f"{said} (--z-step if that is wrong)",) if said else ()


def _shape(step_um: float, pixel_um: float) -> str:
    ratio = step_um / pixel_um
    if ODD_FLAT <= ratio <= ODD_TALL:
        return ""
    return f"its voxels are unusual: {pixel_um:g} um wide and {step_um:g} um high"


def measured_step_um(focus_um: npt.NDArray[np.float64]) -> float:
    """The median distance between the positions (volumes, depth), um, of slices; NaN if they are unknown or do not
    rise or fall from slice to slice."""
    moves = np.diff(focus_um, axis=1)
    known = moves[np.isfinite(moves).all(axis=1)]
    steady = known[(known > 0).all(axis=1) | (known < 0).all(axis=1)]
    if not steady.size or 2 * len(steady) < len(known):
        return math.nan
    return float(np.median(np.abs(steady)))
