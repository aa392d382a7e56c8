"""How a volume was taken, slice by slice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

MOST_SLICES = 1000
"""Slices of a volume at most: far more than any drive's sequence, and few enough for a message's header."""


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """The slices of a volume, in the order of its planes: from the lowest focus up, whichever way the drive went.

    `z_um` is the height of each slice above the first one, um, ascending from 0. `time_s` is the time of each slice
    minus the frame's `time_s`; empty where it is not known, or where all were taken at once. `missing` are the
    planes without an image: their pixels are 0 and mean nothing. `upwards` says which way the drive went.

    Raises `ValueError` for values that cannot be.
    """

    z_um: tuple[float, ...]
    time_s: tuple[float, ...] = ()
    missing: tuple[int, ...] = ()
    upwards: bool = True

    def __post_init__(self) -> None:
        slices = len(self.z_um)
        if not 1 <= slices <= MOST_SLICES:
            raise ValueError(f"a volume has 1 to {MOST_SLICES} slices, not {slices}")
        if self.z_um[0] != 0 or not all(map(math.isfinite, self.z_um)):
            raise ValueError("z_um are finite heights above the first slice, from 0")
        if any(b <= a for a, b in zip(self.z_um, self.z_um[1:], strict=False)):
            raise ValueError("z_um must ascend")
        if self.time_s and (len(self.time_s) != slices or not all(map(math.isfinite, self.time_s))):
            raise ValueError(f"time_s has a finite time for each of the {slices} slices, or none")
        if list(self.missing) != sorted({*self.missing} & {*range(slices)}):
            raise ValueError(f"missing are planes of 0 to {slices - 1}, in order and each once")

    @property
    def slices(self) -> int:
        """Number of slices, those that are missing included."""
        return len(self.z_um)

    @property
    def z_step_um(self) -> float:
        """Distance between two slices, um (median); NaN for one slice."""
        steps = [b - a for a, b in zip(self.z_um, self.z_um[1:], strict=False)]
        return median(steps) if steps else math.nan

    @property
    def is_whole(self) -> bool:
        """Whether no slice is missing."""
        return not self.missing
