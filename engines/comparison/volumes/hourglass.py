"""DetNet's slim hourglass in 3D: the network of DetNet3D and of DM-DetNet3D (Spilger et al., section 2).

The paper shows layers, channels and kernels in a figure only. Two independent codes of the 2D original
(EdgarLefevre/DetNet, imzhangyd/DL_Particle_Detection) agree on what is here, but for the residuals of the decoder.
"""

from __future__ import annotations

import torch
from torch import nn

CHANNELS = (16, 32, 64, 32, 16)
"""Of the five blocks: two before a pool each, the middle one, two after an upsampling each."""
POOLS = ((2, 2, 2), (1, 2, 2))
"""How far the pools shrink a stack along z, y and x. Ten slices can be halved once."""
FIRST_OUTPUT = -4.0
"""Logit that the network starts with everywhere, so that training need not begin with learning that most voxels
are empty. The paper says nothing of it; a trained network does not keep it."""


class Block(nn.Module):
    """Three 3x3x3 convolutions with instance norm and ReLU each; the first's output is added to the third's."""

    def __init__(self, given: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(count, channels, 3, padding=1, bias=False),
                nn.InstanceNorm3d(channels, affine=True),
                nn.ReLU(),
            )
            for count in (given, channels, channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output, of the size of its input."""
        first = self.layers[0](x)
        return self.layers[2](self.layers[1](first)) + first


class Hourglass(nn.Module):
    """Stacks (B, 1, Z, H, W) of mean 0 to the logits of a map of the same shape; sizes are `input.MULTIPLE`s."""

    def __init__(self) -> None:
        super().__init__()
        given = (1, *CHANNELS[:-1])
        self.blocks = nn.ModuleList(Block(a, b) for a, b in zip(given, CHANNELS, strict=True))
        self.pools = nn.ModuleList(nn.MaxPool3d(size) for size in POOLS)
        self.ups = nn.ModuleList(
            nn.Upsample(scale_factor=tuple(float(n) for n in size), mode="nearest") for size in POOLS[::-1]
        )
        self.output = nn.Conv3d(CHANNELS[-1], 1, 1)
        nn.init.constant_(self.output.bias, FIRST_OUTPUT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        wide, half, middle, half_again, wide_again = self.blocks
        x = self.pools[1](half(self.pools[0](wide(x))))
        x = half_again(self.ups[0](middle(x)))
        return self.output(wide_again(self.ups[1](x)))
