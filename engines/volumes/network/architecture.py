"""The volume network in torch: cells of 4 x 4 pixels and 2 slices, convolutions in the plane and along z in turn.

A full-resolution network in 3D takes seconds a volume on one core; a stem that takes patches of 8 x 8 pixels and 4
slices in steps of 4 and 2 leaves a thirty-second of the places. Slices are not channels: the cells along z are
treated alike, as images of a batch, and tell each other by convolutions along z. So one network reads stacks of any
number of slices, needs no windows with seams, and learns from each cell what it knows of all. What is beyond the
ends of the stack, and slices without an image, is 0 like the background, and the stem is told which slices there
are.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from engines.volumes.network.layout import (
    BRIGHTNESS,
    CHANNELS,
    LEAST_PRESENT,
    LEAST_SIGMA,
    LOG_SIGMA_RANGE,
    LOGIT,
    SIGMA_X,
    STEP,
    STRIDE,
)

WIDTHS: dict[str, tuple[int, int]] = {"small": (32, 48), "large": (64, 96)}
"""Channels at a quarter and at an eighth of the resolution."""
KNEE = 20.0
"""Standard deviations of the noise beyond which values x are compressed, to x / sqrt(1 + |x| / knee): a particle's
shot noise grows as the root of its light. Faint particles, whose best filter is linear, stay below."""
STEM_PX, STEM_SLICES = 8, 4
"""Size of the stem's patches: a cell and half a cell on each side."""
RARE = 0.01
"""Probability of a particle in a cell before training. Only the start of a training depends on it."""
TYPICAL = 1.0
"""Brightness before training."""
SETTLING, LEAST_PART = 1000, 0.02
"""Batches over which the statistics of the normalisation are taken, and the least part of a batch in them."""


class SteadyNorm(nn.BatchNorm2d):
    """Batch normalisation by running statistics also while training, which are held after `SETTLING` batches.

    Volumes differ by a hundred times in brightness. A batch's own statistics would say how bright its particles
    are, which is not known in use: trained with them, a network missed all particles at a signal-to-noise ratio
    of 1.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to the same shape."""
        if self.training and int(self.num_batches_tracked) < SETTLING:
            with torch.no_grad():
                seen = int(self.num_batches_tracked)
                part = max(LEAST_PART, 1.0 / (1 + seen))
                values = x.detach().float()
                self.running_mean.lerp_(values.mean(dim=(0, 2, 3)), part)
                self.running_var.lerp_(values.var(dim=(0, 2, 3)), part)
                self.num_batches_tracked += 1
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


class InPlane(nn.Module):
    """x + ReLU(norm(3 x 3 convolution of x)), each layer of cells by itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = SteadyNorm(channels)

    def forward(self, x: torch.Tensor, layers: int) -> torch.Tensor:
        """Map (B layers, C, H, W) to the same shape."""
        return x + torch.relu(self.norm(self.convolution(x)))


class AlongZ(nn.Module):
    """x + ReLU(norm(convolution of x over three layers of cells))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3 * channels, channels, 1, bias=False)
        self.norm = SteadyNorm(channels)

    def forward(self, x: torch.Tensor, layers: int) -> torch.Tensor:
        """Map (B layers, C, H, W) to the same shape; beyond the ends there is 0."""
        by_layer = x.unflatten(0, (-1, layers))
        nothing = torch.zeros_like(by_layer[:, :1])
        below = torch.cat([nothing, by_layer[:, :-1]], dim=1)
        above = torch.cat([by_layer[:, 1:], nothing], dim=1)
        three = torch.cat([below, by_layer, above], dim=2).flatten(0, 1)
        return x + torch.relu(self.norm(self.convolution(three)))


def _resample(kind: type[nn.Module], inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(kind(inner, outer, 2, stride=2, bias=False), SteadyNorm(outer), nn.ReLU())


class VolumeNet(nn.Module):
    """(B, S, H, W), values and absent slices as in `layout` -> (B, S/2, H/4, W/4, values).

    S is even, H and W are multiples of 8. Of the values the logit of the probability comes first; standard errors
    are positive.
    """

    def __init__(self, size: str = "small") -> None:
        super().__init__()
        fine, coarse = WIDTHS[size]
        self.stem = nn.Conv2d(STEM_SLICES, fine, STEM_PX, STRIDE, padding=(STEM_PX - STRIDE) // 2, bias=False)
        self.stem_norm = SteadyNorm(fine)
        self.ends = nn.Linear(STEM_SLICES, 2 * fine)
        self.before = nn.ModuleList([AlongZ(fine), InPlane(fine)])
        self.down = _resample(nn.Conv2d, fine, coarse)
        self.coarse = nn.ModuleList([InPlane(coarse), AlongZ(coarse), InPlane(coarse)])
        self.up = _resample(nn.ConvTranspose2d, coarse, fine)
        self.after = nn.ModuleList([InPlane(fine), AlongZ(fine), InPlane(fine)])
        self.head = nn.Conv2d(fine, CHANNELS, 1)
        nn.init.zeros_(self.ends.weight)
        nn.init.zeros_(self.ends.bias)
        nn.init.normal_(self.head.weight, std=0.01)
        bias = torch.zeros(CHANNELS)
        bias[LOGIT] = math.log(RARE / (1 - RARE))
        bias[BRIGHTNESS] = TYPICAL
        bias[SIGMA_X:] = torch.tensor([-1.0, -1.0, -1.0, -1.0])
        self.head.bias = nn.Parameter(bias)
        self.register_buffer("least_sigma", torch.tensor(LEAST_SIGMA), persistent=False)

    def start_with(self, templates: torch.Tensor) -> None:
        """Let the first filters of the stem be `templates` (K, 4, 8, 8): what is known need not be learnt."""
        with torch.no_grad():
            self.stem.weight[: len(templates)] = templates

    def planes(self, volume: torch.Tensor) -> torch.Tensor:
        """Map (B, S, H, W) to (B, S/2, values, H/4, W/4), the output of model files: see `layout`."""
        layers = volume.shape[1] // STEP
        there = (volume[:, :, 0, 0] > LEAST_PRESENT).to(volume.dtype)
        signal = volume * there[:, :, None, None]
        signal = signal / torch.sqrt(1.0 + signal.abs() / KNEE)
        slices = _patches(nn.functional.pad(signal, (0, 0, 0, 0, 1, 1))).flatten(0, 1)
        absent = 1.0 - _patches(nn.functional.pad(there, (1, 1))).flatten(0, 1)
        scale, shift = self.ends(absent)[:, :, None, None].chunk(2, dim=1)
        fine = self.stem_norm(self.stem(slices)) * (1.0 + scale) + shift
        for block in self.before:
            fine = block(fine, layers)
        deep = self.down(fine)
        for block in self.coarse:
            deep = block(deep, layers)
        fine = fine + self.up(deep)
        for block in self.after:
            fine = block(fine, layers)
        with torch.autocast(volume.device.type, enabled=False):
            planes: torch.Tensor = self.head(fine.float())
        return planes.unflatten(0, (-1, layers))

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Map (B, S, H, W) to (B, S/2, H/4, W/4, values)."""
        maps = self.planes(volume).permute(0, 1, 3, 4, 2)
        sigma = self.least_sigma + torch.exp(maps[..., SIGMA_X:].clamp(*LOG_SIGMA_RANGE))
        return torch.cat([maps[..., :SIGMA_X], sigma], dim=-1)


def _patches(padded: torch.Tensor) -> torch.Tensor:
    """The four slices (B, S/2, 4, ...) that each layer of cells reads, of a stack (B, S + 2, ...) with its ends."""
    count = padded.shape[1] - STEP
    return torch.stack([padded[:, first : count + first : STEP] for first in range(STEM_SLICES)], dim=2)


class Planes(nn.Module):
    """A network with the output of model files."""

    def __init__(self, network: VolumeNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map (1, S, H, W) to (1, S/2, values, H/4, W/4)."""
        return self.network.planes(image)
