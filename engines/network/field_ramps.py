"""Coordinates of the field of view as the network's input: polynomials of the place, added to its features.

A convolution of extra input channels that hold the place (Liu et al. 2018, CoordConv; Fu et al. 2023 give them to a
localisation network) adds a ramp to each channel. Here the ramps are added as such, at an eighth and a sixteenth of
the resolution, where there are few cells; the finer levels get them through the U-Net.
"""

from __future__ import annotations

import torch
from torch import nn

from engines.blocks import BLOCK_PX

TERMS = 5
"""u, v, u^2, uv, v^2: the terms of a focal surface, and of a smear that grows with the square of the distance."""


class FieldRamps(nn.Module):
    """Adds c1 u + c2 v + c3 u^2 + c4 uv + c5 v^2 to each channel of features, one cell for `stride` px.

    u and v are the place in a field of view of `shape` (H, W), as `engines.refine.field` defines it. The
    coefficients start at 0.
    """

    def __init__(self, channels: int, stride: int, shape: tuple[int, int]) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.zeros(TERMS, channels))
        self.stride, self.shape = stride, shape

    def forward(self, x: torch.Tensor, origin: torch.Tensor | None = None) -> torch.Tensor:
        """Map (B, C, H, W) to the same shape.

        `origin` (B, 2) is where each image's first pixel lies in the field, x and y in px. Without it, or where it
        is NaN, images as large as the field, once padded, cover the field; others have the same middle, as
        `tiles.origin_px` has it.
        """
        v = self._place(x, 2, None if origin is None else origin[:, 1])
        u = self._place(x, 3, None if origin is None else origin[:, 0])
        cu, cv, cuu, cuv, cvv = (self.coefficients[term].float()[:, None, None] for term in range(TERMS))
        v, u = v[:, None, :, None], u[:, None, None, :]
        down = torch.cat([v * (cv + cvv * v), cu + cuv * v, cuu + 0.0 * v], dim=3)
        across = torch.cat([torch.ones_like(u), u, u * u], dim=2)
        return x + (down @ across).to(x.dtype)

    def _place(self, x: torch.Tensor, axis: int, origin: torch.Tensor | None) -> torch.Tensor:
        """u or v (1 or B, cells) in the middle of each cell along an axis."""
        size = self.shape[axis - 2]
        whole = -(-size // BLOCK_PX) * BLOCK_PX
        cell = torch.arange(x.shape[axis], device=x.device, dtype=torch.float32)[None]
        seen = self.stride * (cell[:, -1:] + 1.0)
        begin = torch.where(seen == whole, torch.zeros_like(seen), 0.5 * (size - seen))
        if origin is not None:
            given = origin.float()[:, None]
            begin = torch.where(torch.isnan(given), begin, given)
        place = begin + self.stride * cell + 0.5 * (self.stride - 1)
        return (place - 0.5 * (size - 1)) / (0.5 * max(self.shape))
