"""The encoder of Franchini & Krevor (2020), section 2.2: Inception V1 up to its first module at 1/32.

Szegedy et al. (2015), table 1, on images of one channel, with batch normalisation as in the implementation that
TensorBox loads. Its weights start at random here, theirs had been trained on photographs (ImageNet).
"""

from __future__ import annotations

import torch
from torch import nn

EARLY_CHANNELS = 256
EARLY_STRIDE_PX = 8
LATE_CHANNELS = 832

# 1x1; 1x1 before 3x3, 3x3; 1x1 before 5x5, 5x5; 1x1 after the pooling
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
}


def _convolution(inner: int, outer: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outer),
        nn.ReLU(inplace=True),
    )


class Inception(nn.Module):
    """Convolutions of 1 x 1, 3 x 3 and 5 x 5 and a pooling beside one another, their channels joined."""

    def __init__(self, inner: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, before_three, three, before_five, five, pooled = widths
        self.branches = nn.ModuleList(
            [
                _convolution(inner, one, 1),
                nn.Sequential(_convolution(inner, before_three, 1), _convolution(before_three, three, 3)),
                nn.Sequential(_convolution(inner, before_five, 1), _convolution(before_five, five, 5)),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _convolution(inner, pooled, 1)),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, inner, H, W) to (B, sum of the branches' channels, H, W)."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def _modules(names: str, inner: int) -> tuple[nn.Sequential, int]:
    chain = []
    for name in names.split():
        widths = MODULES[name]
        chain.append(Inception(inner, widths))
        inner = widths[0] + widths[2] + widths[4] + widths[5]
    return nn.Sequential(*chain), inner


class Encoder(nn.Module):
    """(B, 1, H, W) -> the first module's output (B, 256, H/8, W/8), the last one's (B, 832, H/32, W/32).

    H and W are multiples of 32. Cell k of the first is centred on pixel 8 k, of the second on pixel 32 k + 16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _convolution(1, 64, 7, stride=2),
            nn.MaxPool2d(3, stride=2, padding=1),
            _convolution(64, 64, 1),
            _convolution(64, 192, 3),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.early, inner = _modules("3a", 192)
        eighth, inner = _modules("3b", inner)
        sixteenth, inner = _modules("4a 4b 4c 4d 4e", inner)
        last, _ = _modules("5a", inner)
        self.late = nn.Sequential(
            eighth,
            nn.MaxPool2d(3, stride=2, padding=1),
            sixteenth,
            # without padding: the cells' centres move by half a region, to the middle of their regions
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            last,
        )

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both maps of features."""
        early = self.early(self.stem(image))
        return early, self.late(early)
