"""One torch module from a frame's bytes to the few slots that can be particles.

It has no branches, so it can be captured as one CUDA graph and exported as one ONNX file for TensorRT.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engines.cuda.layout import FrameFormat
from engines.cuda.ranges import LARGEST_HALF
from engines.cuda.with_torch.background import contrast_of, pixels_of
from engines.network.architecture import ParticleNet, Residual
from engines.network.decode import LEAST_LOGIT
from engines.network.layout import LOGIT
from engines.network.model_card import ModelCard


def folded(network: ParticleNet) -> ParticleNet:
    """A copy of an evaluating network with each batch normalisation folded into the convolution before it."""
    network = deepcopy(network)
    for module in list(network.modules()):
        if isinstance(module, Residual):
            module.convolution = fuse_conv_bn_eval(module.convolution, module.norm)
            module.norm = nn.Identity()
        elif isinstance(module, nn.Sequential) and len(module) > 1 and isinstance(module[1], nn.BatchNorm2d):
            transposed = isinstance(module[0], nn.ConvTranspose2d)
            module[0] = fuse_conv_bn_eval(module[0], module[1], transpose=transposed)
            module[1] = nn.Identity()
    return network


class FrameProgram(nn.Module):
    """Raw bytes of a frame -> kept slots, summary and maps, laid out as `layout` says, all in float32.

    With `half` the network runs in half precision; its output is converted to float32 at once. The dark reference
    and the factor of a flat field are inputs, as they change more often than the model.
    """

    def __init__(self, network: ParticleNet, card: ModelCard, frame: FrameFormat, *, half: bool) -> None:
        super().__init__()
        self.frame = frame
        self.network = folded(network).requires_grad_(False)
        self._type = torch.half if half else torch.float
        least = self.network.least_sigma
        self.network.to(dtype=self._type, memory_format=torch.channels_last)
        self.network.least_sigma = least
        self._scale = card.sign / card.noise_contrast

    def forward(
        self, raw: torch.Tensor, dark: torch.Tensor | None = None, factor: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Kept slots (strips, kept, values), summary, maps (1, H/4, W/4, slots, values) of raw bytes."""
        frame = self.frame
        flat_field = None if dark is None or factor is None else (dark, factor)
        contrast, background = contrast_of(
            pixels_of(raw), frame.row_step, 8 * frame.bytes_per_pixel, self._scale, flat_field
        )
        down, across = (4 * cells for cells in frame.cells)
        image = functional.pad(contrast, (0, across - frame.width, 0, down - frame.height))[None, None]
        if self._type is torch.half:
            image = image.clamp(-LARGEST_HALF, LARGEST_HALF).half()
        maps = self.network(image.contiguous(memory_format=torch.channels_last))
        kept, counts = self._strongest(maps)
        return kept, torch.cat([background.reshape(1), maps.mean().reshape(1), counts]), maps

    def _strongest(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The strongest slots of each strip, with their indices, and how many there would be."""
        values = self.frame.values
        strips = maps.reshape(self.frame.strips, -1, values)
        logits = strips[..., LOGIT]
        index = torch.topk(logits, self.frame.kept, dim=1).indices
        kept = torch.gather(strips, 1, index[..., None].expand(-1, -1, values))
        return torch.cat([index[..., None].float(), kept], dim=2), (logits > LEAST_LOGIT).float().sum(dim=1)
