"""The network's architecture in torch: a U-Net from a quarter of the resolution down to a sixteenth.

The stem takes patches of 4 x 4 pixels, the cheapest way to a quarter of the resolution; skip connections are added,
not concatenated. The cost does not depend on the content of the image.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from engines.network.field_ramps import FieldRamps
from engines.network.layout import (
    BLOCKS,
    CHANNELS,
    LEAST_LEARNT_SIGMA,
    LEAST_SIGMA,
    LOG_SIGMA_RANGE,
    SIGMA_X,
    SLOT_DEPTH,
    SLOTS,
    STRIDE,
    Z,
    class_values,
    planes_of,
)

Size = Literal["small", "large"]
WIDTHS: dict[str, tuple[int, int, int]] = {"small": (24, 40, 64), "large": (48, 96, 128)}
RARE = 0.01
"""Probability of a particle in a slot before training: few hold one. Only the start of a training depends on it."""


class Residual(nn.Module):
    """x + ReLU(norm(3 x 3 convolution of x))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to the same shape."""
        return x + torch.relu(self.norm(self.convolution(x)))


def _resample(kind: type[nn.Module], inner: int, outer: int, factor: int) -> nn.Sequential:
    return nn.Sequential(
        kind(inner, outer, factor, stride=factor, bias=False), nn.BatchNorm2d(outer), nn.ReLU()
    )


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(channels) for _ in range(count)))


class ParticleNet(nn.Module):
    """(B, 1, H, W) contrast in standard deviations of the noise -> (B, H/4, W/4, slots, values).

    H and W are multiples of 16. The values are those of `layout`, the logit of the probability first, standard
    errors positive. With a `knee`, contrasts x beyond it are compressed to x / sqrt(1 + |x| / knee): for particles
    a hundred times brighter in focus than far from it. With a `field_shape` (H, W) it also gets the place in that
    field of view: `origin` (B, 2) is where each image's first pixel lies there, see `field_ramps`. For several
    `kinds` of particles the logit of each class follows the values of a slot, then the values of the `learnt`
    numbers and their standard errors.
    """

    def __init__(
        self,
        size: Size = "small",
        knee: float | None = None,
        field_shape: tuple[int, int] | None = None,
        kinds: int = 1,
        learnt: int = 0,
    ) -> None:
        super().__init__()
        self.knee, self.field_shape, self._classes = knee, field_shape, class_values(kinds)
        self._learnt = learnt
        fine, middle, coarse = WIDTHS[size]
        on_fine, on_middle, on_coarse = BLOCKS[size]
        self.stem = _resample(nn.Conv2d, 1, fine, STRIDE)
        self.down_1 = _resample(nn.Conv2d, fine, middle, 2)
        self.middle = _blocks(middle, on_middle)
        self.down_2 = _resample(nn.Conv2d, middle, coarse, 2)
        self.coarse = _blocks(coarse, on_coarse)
        self.up_2 = _resample(nn.ConvTranspose2d, coarse, middle, 2)
        self.up_1 = _resample(nn.ConvTranspose2d, middle, fine, 2)
        self.fine = _blocks(fine, on_fine)
        if field_shape is not None:
            self.ramps_1 = FieldRamps(middle, 2 * STRIDE, field_shape)
            self.ramps_2 = FieldRamps(coarse, 4 * STRIDE, field_shape)
        self.head = nn.Conv2d(fine, planes_of(kinds, learnt), 1)
        nn.init.normal_(self.head.weight, std=0.01)
        bias = torch.zeros(SLOTS, CHANNELS)
        bias[:, 0] = math.log(RARE / (1 - RARE))
        bias[:, Z] = torch.tensor(SLOT_DEPTH)
        bias[:, SIGMA_X:] = torch.tensor([0.0, 0.0, -0.5, -1.0])
        bias[:, SIGMA_X - 1] = 1.0
        more = torch.zeros(SLOTS * (self._classes + 2 * learnt))
        self.head.bias = nn.Parameter(torch.cat([bias.flatten(), more]))
        self.register_buffer("least_sigma", torch.tensor(LEAST_SIGMA), persistent=False)

    def planes(self, image: torch.Tensor, origin: torch.Tensor | None = None) -> torch.Tensor:
        """Map (B, 1, H, W) to (B, planes, H/4, W/4), the output of model files: see `layout`."""
        if self.knee is not None:
            image = image / torch.sqrt(1.0 + image.abs() / self.knee)
        quarter = self.stem(image)
        eighth = self.middle(self._placed("ramps_1", self.down_1(quarter), origin))
        deep = self.coarse(self._placed("ramps_2", self.down_2(eighth), origin))
        eighth = eighth + self.up_2(deep)
        planes: torch.Tensor = self.head(self.fine(quarter + self.up_1(eighth)))
        return planes.float()

    def _placed(self, ramps: str, x: torch.Tensor, origin: torch.Tensor | None) -> torch.Tensor:
        return x if self.field_shape is None else getattr(self, ramps)(x, origin)

    def forward(self, image: torch.Tensor, origin: torch.Tensor | None = None) -> torch.Tensor:
        """Map (B, 1, H, W) to (B, H/4, W/4, slots, values)."""
        planes = self.planes(image, origin).permute(0, 2, 3, 1)
        maps = planes[..., : SLOTS * CHANNELS].unflatten(3, (SLOTS, CHANNELS))
        sigma = self.least_sigma + torch.exp(maps[..., SIGMA_X:].clamp(*LOG_SIGMA_RANGE))
        parts, first = [maps[..., :SIGMA_X], sigma], SLOTS * CHANNELS
        if self._classes:
            end = first + SLOTS * self._classes
            parts.append(planes[..., first:end].unflatten(3, (SLOTS, self._classes)))
            first = end
        if self._learnt:
            more = planes[..., first:].unflatten(3, (SLOTS, 2 * self._learnt))
            values, log_sigma = more.split(self._learnt, dim=-1)
            parts += [values, LEAST_LEARNT_SIGMA + torch.exp(log_sigma.clamp(*LOG_SIGMA_RANGE))]
        return torch.cat(parts, dim=-1)


class Planes(nn.Module):
    """A network with the output of model files."""

    def __init__(self, network: ParticleNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor, origin: torch.Tensor | None = None) -> torch.Tensor:
        """Map (B, 1, H, W) to (B, planes, H/4, W/4); `origin` (B, 2) as in `ParticleNet`."""
        return self.network.planes(image, origin)


def parameters_of(network: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
