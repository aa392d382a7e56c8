"""The candidates that are aligned first: those that stand alone, and their first depths."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from calibration.alignment.aligned import Positions
from calibration.alignment.start import binned, start_shifts
from calibration.errors import CalibrationError
from calibration.particles.seen import Seen
from calibration.preparation import Options

IndexArray = npt.NDArray[np.intp]

FEWEST = 5
"""Fewest particles of a calibration: their mean is then their PSF rather than one particle's."""
LONE_PARTS = (0.9, 0.7, 0.5)
"""Least distance of lone particles' neighbours over the half width of the cut-outs, relaxed in this order."""
ENOUGH_PART = 0.3
"""Part of the particles that is enough to align. 20 % more or less changes nothing in a small simulated scan (rms
depth error 0.082 um)."""
ALIKE = 0.3
"""Median correlation of traces below which they are not of one kind of particle; good scans have 0.8 or more."""
NEAR_GRID = 0.75
"""Distance from an even grid of planes, in steps, up to which a plane is used for the start."""


def lone(seen: Seen, options: Options) -> IndexArray:
    """Candidates wholly in the image and without a near neighbour; with nearer ones where these are too few."""
    neighbour_px = seen.found.neighbour_px()
    for part in LONE_PARTS:
        limit_px = options.neighbour_px or part * seen.traces.half_px
        lone = np.flatnonzero((neighbour_px > limit_px) & seen.traces.complete)
        if lone.size >= max(FEWEST, ENOUGH_PART * len(seen.found)):
            return lone
    if lone.size < FEWEST:
        raise CalibrationError(
            f"only {lone.size} of {len(seen.found)} particles stand alone, and {FEWEST} are needed; dilute the "
            "suspension or scan a larger field"
        )
    return lone


def first_positions(seen: Seen, members: IndexArray) -> Positions:
    """First depths, from shifts by whole steps on an evenly spaced grid of planes."""
    focus_um, step_um = seen.focus_um, seen.step_um
    even_um = focus_um[0] + step_um * np.arange(round((focus_um[-1] - focus_um[0]) / step_um) + 1)
    nearest = np.abs(focus_um[None, :] - even_um[:, None]).argmin(axis=1)
    there = np.abs(focus_um[nearest] - even_um) < NEAR_GRID * step_um
    small = binned(seen.traces.contrast[members])[:, nearest] * there[:, None].astype(np.float32)
    shifts, quality = start_shifts(small, seen.noise_variance / 4)
    if float(np.median(quality)) < ALIKE:
        raise CalibrationError(
            "the particles do not change alike with the focus, so their depths cannot be compared; check that "
            "there is one kind of particle, and that the focus really moves"
        )
    return Positions(
        np.ones(members.size),
        shifts * step_um,
        (seen.found.x_px - seen.traces.column)[members],
        (seen.found.y_px - seen.traces.row)[members],
    )
