"""Stitching: particles of an image from the outputs of all regions, those seen by two regions counted once.

The stitching of Stewart, Andriluka & Ng (2016), section 3, as in TensorBox: from the most confident downwards,
region by region, a region's outputs are assigned one to one to the particles accepted so far, as many as
possible within reach, and then as near as possible; what is assigned is a second detection, the rest is accepted.
So two particles with the same centre that one region tells apart remain two.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from engines.comparison.layout import CENTRE_PX, CORRECTED, HALF_REGION_PX, LOGIT, REGION_PX, X, Y, Z
from engines.network.decode import ROW

FloatArray = npt.NDArray[np.float64]

LEAST_CONFIDENCE = 0.5
LEVELS = (0.8, 0.7, 0.6, LEAST_CONFIDENCE)
SAME_PX = 8.0
"""px within which outputs of two regions can be the same particle; TensorBox uses the overlap of their boxes."""


def read(answers: npt.NDArray[np.float32]) -> FloatArray:
    """Particles (N, 8), columns `engines.network.decode.ROW`, of one image's answers, the most confident first.

    `answers` (rows, columns, outputs, answers, values) as `tensorbox.PaperNet` gives them. The detector gives
    neither brightness nor standard errors: these are NaN.
    """
    if not np.isfinite(answers).all():
        raise ValueError("the network gave values that are not finite numbers")
    least = np.log(LEAST_CONFIDENCE / (1 - LEAST_CONFIDENCE))
    row, column, output = np.nonzero(answers[..., CORRECTED, LOGIT] >= least)
    values = answers[row, column, output, CORRECTED].astype(np.float64)
    x = REGION_PX * column + HALF_REGION_PX * values[:, X] + CENTRE_PX
    y = REGION_PX * row + HALF_REGION_PX * values[:, Y] + CENTRE_PX
    z, confidence = values[:, Z], 1 / (1 + np.exp(-values[:, LOGIT]))
    places = np.column_stack([x, y, z * HALF_REGION_PX])
    accepted = stitch(places, confidence, np.column_stack([row, column]))
    found = np.full((accepted.size, len(ROW)), np.nan)
    for name, value in (("x_px", x), ("y_px", y), ("z", z), ("confidence", confidence)):
        found[:, ROW.index(name)] = value[accepted]
    return found


def stitch(
    places_px: FloatArray, confidence: FloatArray, regions: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Indices of the outputs (N) that are particles, the most confident first.

    `places_px` (N, 3) are positions, `regions` (N, 2) the row and column of the region that gave each. The third
    coordinate decides, with the others, which is assigned to which, but not what is within reach.
    """
    members: dict[tuple[int, int], list[int]] = {}
    for n, (row, column) in enumerate(regions.tolist()):
        members.setdefault((row, column), []).append(n)
    accepted: dict[tuple[int, int], list[int]] = {region: [] for region in members}
    for level in LEVELS:
        for region, every in members.items():
            current = np.array([n for n in every if confidence[n] >= level], np.intp)
            if not current.size:
                continue
            near = [
                n
                for row in range(region[0] - 2, region[0] + 3)
                for column in range(region[1] - 2, region[1] + 3)
                for n in accepted.get((row, column), ())
            ]
            repeated = _repeated(places_px[current], places_px[near])
            accepted[region] += current[~repeated].tolist()
    chosen = np.array([n for every in accepted.values() for n in every], np.intp)
    return chosen[np.argsort(-confidence[chosen], kind="stable")]


def _repeated(current: FloatArray, accepted: FloatArray) -> npt.NDArray[np.bool_]:
    """Which of the places (N, 3) are assigned to one of (M, 3) within reach."""
    repeated = np.zeros(len(current), np.bool_)
    step = np.abs(current[:, None] - accepted[None])
    within = np.hypot(step[..., 0], step[..., 1]) < SAME_PX
    if within.any():
        distance = step.sum(axis=2)
        beyond = 1.0 + distance.sum()
        rows, columns = linear_sum_assignment(np.where(within, distance, beyond))
        repeated[rows] = within[rows, columns]
    return repeated
