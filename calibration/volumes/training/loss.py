"""Loss of the training on volumes: every particle is shared among the cells that could hold it.

As for images (`calibration.training.loss`), with the 3 x 3 x 3 cells around a particle as its candidates.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from calibration.training.loss import DETECTION_WEIGHT, FAR_CELLS, Losses, share_out
from engines.volumes.network.layout import SIGMA_X, X


class VolumeTargets(NamedTuple):
    """Particles (N,): volume, cell (N, 3) as layer, row and column, and values (N, 4).

    The values are x, y, z off the centre of that cell, in cells, and the brightness, as in
    `engines.volumes.network.layout`.
    """

    volume: torch.Tensor
    cell: torch.Tensor
    values: torch.Tensor


def volume_loss(maps: torch.Tensor, targets: VolumeTargets, weight: float = DETECTION_WEIGHT) -> Losses:
    """The loss of maps (B, D, H, W, values) for the true particles; without any the likelihood is 0."""
    flat = maps.reshape(-1, maps.shape[-1])
    logits = flat[:, 0]
    number = targets.values.shape[0]
    count = max(1, number)
    wanted = torch.zeros_like(logits)
    likelihood = logits.sum() * 0.0
    if number:
        cell, inside, offset = _candidates(targets, tuple(maps.shape[1:4]))
        own = flat[cell]
        true = torch.cat(
            [targets.values[:, None, :3] + offset, _as_many(targets.values[:, 3:], cell)], dim=-1
        )
        log_density = _log_density(own, true)
        with torch.no_grad():
            prior = -0.5 * true[..., :3].square().sum(-1) / FAR_CELLS**2
            score = logsigmoid(own[..., 0]) + log_density + prior
            shares = share_out(score.masked_fill(~inside, -torch.inf), cell, logits.numel())
            wanted.index_add_(0, cell.flatten(), shares.flatten())
        likelihood = -(shares * log_density).sum() / count
    detection = binary_cross_entropy_with_logits(logits, wanted.clamp(0, 1), reduction="sum") / count
    return Losses(weight * detection + likelihood, detection, likelihood, number)


def _as_many(values: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    return values[:, None].expand(-1, cell.shape[1], -1)


def _candidates(
    targets: VolumeTargets, shape: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cells (N, 27) around each particle, whether they exist, and what to add to its x, y, z for them."""
    step = torch.arange(-1, 2, device=targets.cell.device)
    around = torch.cartesian_prod(step, step, step)
    place = targets.cell[:, None] + around
    size = torch.tensor(shape, device=place.device)
    inside = ((place >= 0) & (place < size)).all(dim=-1)
    place = torch.minimum(place.clamp(min=0), size - 1)
    layer, row, column = place.unbind(-1)
    cell = ((targets.volume[:, None] * shape[0] + layer) * shape[1] + row) * shape[2] + column
    offset = -around.flip(-1).to(targets.values.dtype)
    return cell, inside, offset[None].expand(cell.shape[0], -1, -1)


def _log_density(own: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Log of the normal density (N, K) of the true values (N, K, 4) under the cells' own (N, K, values)."""
    mean, sigma = own[..., X:SIGMA_X], own[..., SIGMA_X:]
    squared = ((true - mean) / sigma).square()
    density: torch.Tensor = (-0.5 * squared - torch.log(sigma) - 0.5 * math.log(2 * math.pi)).sum(-1)
    return density
