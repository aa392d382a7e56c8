"""Loss of the paper's detector: that of Stewart, Andriluka & Ng (2016), section 3, for particles.

In each region the true particles are assigned one to one to the outputs. The cost of a pair is, in this order,
whether the output is out of reach of the particle, the output's rank, and their distance (their equations 1 and
2); so the order of the true particles plays no part, and the outputs learn to give the particles they are sure of
first. Assigned outputs are to be confident and near, all others unconfident. The weights are those of their
program TensorBox, which gives lengths in pixels; depth counts as if its range were as long as a region.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import binary_cross_entropy_with_logits

from calibration.synthesis import Scene
from calibration.training.material import Material
from engines.comparison.layout import (
    CENTRE_PX,
    CORRECTED,
    FIRST,
    HALF_REGION_PX,
    LOGIT,
    OUTPUTS,
    REGION_PX,
    X,
)

FOCUS = 1.25
"""A region answers for particles within so many of its own sizes; what neighbours share is stitched later."""
REACH_PX = 8.0
POSITION_WEIGHT = 0.1
CORRECTED_CONFIDENCE_WEIGHT = 0.1
CORRECTED_POSITION_WEIGHT = 0.03 * POSITION_WEIGHT
LARGEST_SQUARE_PX2 = 100.0

OUT_OF_REACH = 100.0
DISTANCE_SCALE = 2000.0


class Truth(NamedTuple):
    """The particles that each region answers for.

    `values` (B, rows, columns, outputs, 3) are x, y in half regions off the region's centre and z in half ranges;
    `there` (B, rows, columns, outputs) marks those that exist.
    """

    values: npt.NDArray[np.float32]
    there: npt.NDArray[np.bool_]


class HungarianLosses(NamedTuple):
    """The loss and its parts, each a scalar, a region: of the LSTM's answers and of the corrected ones."""

    total: torch.Tensor
    confidence: torch.Tensor
    position: torch.Tensor
    corrected_confidence: torch.Tensor
    corrected_position: torch.Tensor
    over: int = 1


def truth_of(scene: Scene, material: Material) -> Truth:
    """The particles of a scene, by region; where there are too many for one, the nearest to its centre."""
    particles = scene.particles
    images, height, width = scene.images.shape
    rows, columns = height // REGION_PX, width // REGION_PX
    z = (particles.z_um - material.middle_um) / material.half_range_um
    values = np.zeros((images, rows, columns, OUTPUTS, 3), np.float32)
    there = np.zeros((images, rows, columns, OUTPUTS), np.bool_)
    own_row, own_column = (np.floor((v + 0.5) / REGION_PX) for v in (particles.y_px, particles.x_px))
    candidates = []
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            row, column = (own_row + down).astype(np.int64), (own_column + across).astype(np.int64)
            x = (particles.x_px - REGION_PX * column - CENTRE_PX) / HALF_REGION_PX
            y = (particles.y_px - REGION_PX * row - CENTRE_PX) / HALF_REGION_PX
            inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
            inside &= (np.abs(x) <= FOCUS) & (np.abs(y) <= FOCUS)
            region = (particles.frame * rows + row) * columns + column
            candidates.append(np.column_stack([region, x**2 + y**2, x, y, z])[inside])
    found = np.concatenate(candidates)
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    region = found[:, 0].astype(np.int64)
    first = np.searchsorted(region, region, side="left")
    rank = np.arange(region.size) - first
    kept = rank < OUTPUTS
    flat_values, flat_there = values.reshape(-1, OUTPUTS, 3), there.reshape(-1, OUTPUTS)
    flat_values[region[kept], rank[kept]] = found[kept, 2:]
    flat_there[region[kept], rank[kept]] = True
    return Truth(values, there)


def assign(
    answers: npt.NDArray[np.floating], truth: Truth
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The target of each output: the particle assigned to it, and whether there is one.

    `answers` (B, rows, columns, outputs, 3) are the LSTM's positions; the result has the form of `Truth`, but
    in the order of the outputs.
    """
    shape = answers.shape
    given = answers.reshape(-1, OUTPUTS, 3).astype(np.float64)
    values, there = truth.values.reshape(-1, OUTPUTS, 3), truth.there.reshape(-1, OUTPUTS)
    wanted, assigned = np.zeros_like(values), np.zeros_like(there)
    step = np.abs(given[:, :, None] - values[:, None]) * HALF_REGION_PX
    far = np.hypot(step[..., 0], step[..., 1]) >= REACH_PX
    distance = np.minimum(step.sum(axis=-1) / DISTANCE_SCALE, 0.9)
    cost = OUT_OF_REACH * far + np.arange(OUTPUTS)[None, :, None] + distance
    for region in np.flatnonzero(there.any(axis=1)):
        particles = np.flatnonzero(there[region])
        outputs, chosen = linear_sum_assignment(cost[region][:, particles])
        wanted[region, outputs] = values[region, particles[chosen]]
        assigned[region, outputs] = True
    return wanted.reshape(shape), assigned.reshape(shape[:-1])


def hungarian_loss(answers: torch.Tensor, truth: Truth) -> HungarianLosses:
    """The loss of answers (B, rows, columns, outputs, answers, values), `engines.comparison.layout`."""
    first, corrected = answers[..., FIRST, :], answers[..., CORRECTED, :]
    regions = first[..., 0, 0].numel()
    own = assign(first[..., X:].detach().cpu().numpy(), truth)
    wanted, assigned = (torch.from_numpy(v).to(answers.device) for v in own)
    off_px = HALF_REGION_PX * (wanted - first[..., X:])
    position = off_px.abs()[assigned].sum() / regions
    confidence = _cross_entropy(first, assigned) / regions
    # the second confidence says whether the first position was near
    near = assigned & (off_px[..., :2].square().sum(-1) < REACH_PX**2)
    corrected_confidence = _cross_entropy(corrected, near) / regions
    square_px2 = (HALF_REGION_PX * (wanted - corrected[..., X:])).square()
    corrected_position = square_px2.clamp(max=LARGEST_SQUARE_PX2)[assigned].sum() / regions
    total = (
        confidence
        + POSITION_WEIGHT * position
        + CORRECTED_CONFIDENCE_WEIGHT * corrected_confidence
        + CORRECTED_POSITION_WEIGHT * corrected_position
    )
    return HungarianLosses(total, confidence, position, corrected_confidence, corrected_position)


def _cross_entropy(answers: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    logits = answers[..., LOGIT]
    return binary_cross_entropy_with_logits(logits, wanted.to(logits.dtype), reduction="sum")
