"""Whether the PSF changes over the field or the depth: the beads' own widths along x, y and z."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

AXES = ("z", "y", "x")
FEWEST = 12
"""Beads from which a change is looked for: three times the four numbers that are fitted."""
SURE = 4.0
"""A change is told where it exceeds this many standard errors: nine are looked at, and their errors are
approximate."""
WORTH = 0.05
"""A change of a width by less than this part from end to end costs less than 1 % of the accuracy, and is not
told."""


@dataclass(frozen=True, slots=True)
class Variation:
    """Relative change of the width along `width` from the first to the last voxel along `over`, with its error."""

    width: str
    over: str
    change: float
    error: float

    @property
    def matters(self) -> bool:
        """Whether it is there beyond doubt and large enough to matter."""
        return abs(self.change) > max(SURE * self.error, WORTH)


def variation_of(
    log_width: FloatArray, error: FloatArray, place: FloatArray, limits: tuple[int, ...]
) -> tuple[Variation, ...]:
    """Changes of the log widths (N, 3) with errors over the places (N, 3) in volumes of `limits`; z, y, x.

    A plane through the widths, weighted, with the scatter between beads in its errors. Empty for too few beads.
    """
    if len(place) < FEWEST:
        return ()
    found = []
    part = place / np.maximum(np.asarray(limits) - 1.0, 1.0) - 0.5
    terms = np.column_stack([np.ones(len(part)), part])
    for axis, name in enumerate(AXES):
        weight = 1 / np.maximum(error[:, axis], 0.01) ** 2
        for _ in range(10):  # Huber's weights, so that one odd bead is no slope
            normal = terms.T @ (terms * weight[:, None])
            slope = np.linalg.solve(
                normal + 1e-9 * np.trace(normal) * np.eye(4), terms.T @ (weight * log_width[:, axis])
            )
            pull = (log_width[:, axis] - terms @ slope) / np.maximum(error[:, axis], 0.01)
            scale = max(1.0, 1.4826 * float(np.median(np.abs(pull))))
            weight = (
                np.minimum(1.0, 2 * scale / np.maximum(np.abs(pull), 1e-9))
                / np.maximum(error[:, axis], 0.01) ** 2
            )
        covariance = np.linalg.inv(normal + 1e-9 * np.trace(normal) * np.eye(4)) * scale**2
        found += [
            Variation(
                name, AXES[over], float(slope[over + 1]), float(np.sqrt(covariance[over + 1, over + 1]))
            )
            for over in range(3)
            if limits[over] > 1
        ]
    return tuple(found)
