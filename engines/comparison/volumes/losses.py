"""The losses of DM-DetNet3D and DetNet3D."""

from __future__ import annotations

import torch

ALPHA, OMEGA, EPSILON, THETA = 2.1, 14.0, 1.0, 0.5
"""The paper's, section 2."""
SMOOTH = 1.0
"""Added to both parts of the Dice coefficient, in voxels, so that an empty mask has a loss."""


def adaptive_wing(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The loss of each voxel of a map within 0 to 1 (equation 1, where the transcript lost the power's sign).

    Below `THETA` it is logarithmic in the difference to the power `ALPHA` - target (Wang et al., ICCV 2019), above
    it goes on as a straight line, with the same value and slope at `THETA`.
    """
    power = ALPHA - target
    off = (found - target).abs()
    at_theta = (THETA / EPSILON) ** power
    slope = OMEGA * power * at_theta / (THETA * (1 + at_theta))
    shift = THETA * slope - OMEGA * torch.log1p(at_theta)
    # the power's slope is infinite at 0 for no power above 1, but its own logarithm is; so 0 is kept out
    curved = OMEGA * torch.log1p((off.clamp(min=1e-6) / EPSILON) ** power)
    return torch.where(off < THETA, curved, slope * off - shift)


def weighted_wing(logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """DM-DetNet3D's loss: the mean of the adaptive wing loss times the weight map (equation 3)."""
    return (weights * adaptive_wing(logits.float().sigmoid(), target)).mean()


def soft_dice(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """DetNet3D's loss: 1 less the Dice coefficient of probabilities and mask, over all voxels of a batch."""
    found = logits.float().sigmoid()
    return 1 - (2 * (found * mask).sum() + SMOOTH) / (found.sum() + mask.sum() + SMOOTH)
