"""Background and contrast of a frame in torch, with the same steps as `network.preparation`.

The median is found without sorting, digit by digit by counting, which works on a GPU and in ONNX alike.
"""

from __future__ import annotations

import torch

from engines.cuda.ranges import LEAST, LEVELS_OF_BYTE, LIGHT_BITS
from engines.network.preparation import LEVELS_OF_LIGHT


def pixels_of(raw: torch.Tensor) -> torch.Tensor:
    """Grey values (H, W), float32, of raw bytes (H, W) or (H, W, 2)."""
    values = raw.float()  # before anything else: TensorRT can do nothing but this with bytes
    return values if values.ndim == 2 else values[..., 0] + LEVELS_OF_BYTE * values[..., 1]


def median_of_levels(levels: torch.Tensor, bits: int) -> torch.Tensor:
    """The median (scalar) of whole numbers (H, W) below 2^`bits`, interpolated within its level by the counts.

    It is the greatest number that fewer than half of them are below; one binary digit is found after the other.
    """
    half = 0.5 * levels.numel()
    found = torch.zeros_like(levels[0, 0])
    for bit in reversed(range(bits)):
        candidate = found + float(1 << bit)
        found = torch.where((levels < candidate).float().sum() < half, candidate, found)
    below = (levels < found).float().sum()
    there = (levels <= found).float().sum() - below
    return found + (half - below) / there


def contrast_of(
    pixels: torch.Tensor,
    row_step: int,
    bits: int,
    scale: float,
    flat_field: tuple[torch.Tensor, torch.Tensor] | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Contrast (H, W) against the background, times `scale`, and the background (scalar).

    The background is in grey values, or relative to the bright reference with a `flat_field`: dark reference
    (H, W) and factor (H, W), as `FlatField` has them.
    """
    if flat_field is None:
        background = median_of_levels(pixels[::row_step], bits) - 0.5
        return pixels * (scale / background.clamp(min=LEAST)) - scale, background
    dark, factor = flat_field
    relative = (pixels - dark) * factor
    levels = (relative[::row_step] * float(LEVELS_OF_LIGHT)).floor().clamp(0.0, float((1 << LIGHT_BITS) - 1))
    light = median_of_levels(levels, LIGHT_BITS) / LEVELS_OF_LIGHT
    return relative * (scale / light.clamp(min=LEAST)) - scale, light
