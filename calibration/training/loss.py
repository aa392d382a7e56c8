"""Loss of the training: every particle is shared among the slots that could hold it.

The candidates of a particle are the slots of the 3 x 3 cells around it. Its share in each is the posterior of a
mixture whose components are the slots (Speiser et al. 2021, Nature Methods 18, 1082, use the same mixture), with
the restriction that a slot holds one particle at most, which is reached by scaling rows and columns in turn
(Sinkhorn 1964). The shares are the target of the probabilities and the weights of the likelihood.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, logsigmoid

from engines.network.layout import CHANNELS, SIGMA_X, SLOTS, X

DETECTION_WEIGHT = 4.0
ROUNDS = 10
LARGEST_GAP = 9.0
FAR_CELLS = 1.0


class Targets(NamedTuple):
    """Particles (N,): image, cell (row, column), and (N, 4) x, y in cells, z in half ranges, brightness.

    `kind` (N,) is the class, needed where the network tells it. `more` (N, L) are the numbers that it learns beside
    these, in half ranges; NaN where a particle has none.
    """

    image: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    values: torch.Tensor
    kind: torch.Tensor | None = None
    more: torch.Tensor | None = None


class Losses(NamedTuple):
    """The loss and its parts, each a scalar: cross-entropy and negative log-likelihood a particle and class.

    `over` is the number of particles.
    """

    total: torch.Tensor
    detection: torch.Tensor
    likelihood: torch.Tensor
    over: int


def particle_loss(maps: torch.Tensor, targets: Targets, weight: float = DETECTION_WEIGHT) -> Losses:
    """The loss of maps (B, H, W, slots, values) for the true particles; without any the likelihood is 0."""
    height, width = maps.shape[1:3]
    flat = maps.reshape(-1, maps.shape[-1])
    logits = flat[:, 0]
    count = max(1, targets.values.shape[0])
    wanted = torch.zeros_like(logits)
    likelihood = logits.sum() * 0.0
    if targets.values.shape[0]:
        slot, inside, offset = _candidates(targets, height, width)
        own = flat[slot]
        log_density = _log_density(own, targets.values, offset)
        first_more = own.shape[-1] - (0 if targets.more is None else 2 * targets.more.shape[-1])
        if targets.kind is not None and first_more > CHANNELS:
            log_density = log_density + _log_class(own[..., CHANNELS:first_more], targets.kind)
        if targets.more is not None and own.shape[-1] > first_more:
            log_density = log_density + _log_more(own[..., first_more:], targets.more)
        with torch.no_grad():
            prior = -0.5 * (offset + targets.values[:, None, :2]).square().sum(-1) / FAR_CELLS**2
            score = logsigmoid(own[..., 0]) + log_density + prior
            shares = share_out(score.masked_fill(~inside, -torch.inf), slot, logits.numel())
            wanted.index_add_(0, slot.flatten(), shares.flatten())
        likelihood = -(shares * log_density).sum() / count
    detection = binary_cross_entropy_with_logits(logits, wanted.clamp(0, 1), reduction="sum") / count
    return Losses(weight * detection + likelihood, detection, likelihood, targets.values.shape[0])


def share_out(score: torch.Tensor, slot: torch.Tensor, slots: int) -> torch.Tensor:
    """Shares (N, K) of particles in their candidate slots (N, K): rows sum to at most 1, and so does each slot.

    `score` (N, K) is the logarithm of how well each fits, minus infinity where it cannot be.
    """
    score = score - score.max(dim=1, keepdim=True).values
    score = torch.where(torch.isfinite(score), score.clamp(min=-LARGEST_GAP), score)
    shares = torch.softmax(score, dim=1)
    for _ in range(ROUNDS):
        shares = shares / shares.sum(dim=1, keepdim=True)
        taken = torch.zeros(slots, device=shares.device, dtype=shares.dtype)
        taken.index_add_(0, slot.flatten(), shares.flatten())
        shares = shares / taken.clamp(min=1.0)[slot]
    return shares


def _candidates(targets: Targets, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Slots (N, 9 slots) around each particle, whether they exist, and what to add to its x, y for them."""
    step = torch.arange(-1, 2, device=targets.row.device)
    down, across = (grid.flatten() for grid in torch.meshgrid(step, step, indexing="ij"))
    row, column = targets.row[:, None] + down, targets.column[:, None] + across
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
    cell = (targets.image[:, None] * height + row) * width + column
    slot = (cell[..., None] * SLOTS + torch.arange(SLOTS, device=cell.device)).flatten(1)
    offset = -torch.stack([across, down], dim=-1).to(targets.values.dtype)
    offset = offset.repeat_interleave(SLOTS, dim=0)[None].expand(slot.shape[0], -1, -1)
    return slot, inside.repeat_interleave(SLOTS, dim=1), offset


def _log_density(own: torch.Tensor, values: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Log of the normal density (N, K) of the true values (N, 4) under the slots' own (N, K, values)."""
    wanted = values[:, None, :].expand(-1, own.shape[1], -1)
    wanted = torch.cat([wanted[..., :2] + offset, wanted[..., 2:]], dim=-1)
    return _log_normal(wanted, own[..., X:SIGMA_X], own[..., SIGMA_X:CHANNELS]).sum(-1)


def _log_normal(wanted: torch.Tensor, mean: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    squared = ((wanted - mean) / sigma).square()
    density: torch.Tensor = -0.5 * squared - torch.log(sigma) - 0.5 * math.log(2 * math.pi)
    return density


def _log_more(own: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """Log of the density (N, K) of numbers (N, L) under the slots' own (N, K, 2 L); those that are NaN give 0."""
    mean, sigma = own.split(more.shape[-1], dim=-1)
    wanted = more[:, None, :].expand(-1, own.shape[1], -1)
    known = torch.isfinite(wanted)
    density = _log_normal(torch.where(known, wanted, mean.detach()), mean, sigma)
    return torch.where(known, density, torch.zeros_like(density)).sum(-1)


def _log_class(logits: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
    """Log of the probability (N, K) that the slots give to the true class (N,), by their logits (N, K, classes)."""
    wanted = kind[:, None, None].expand(-1, logits.shape[1], 1)
    return log_softmax(logits, dim=-1).gather(-1, wanted).squeeze(-1)
