"""The background and the contrast of a frame in torch, step by step what `network.preparation` does.

A median without sorting, for a GPU and for ONNX alike: its digits are found one after the other by counting.
"""

from __future__ import annotations

import torch

LEVELS_OF_BYTE = 256
FLAT_FIELD_STEPS = 24
LEAST = 1e-6


def pixels_of(raw: torch.Tensor) -> torch.Tensor:
    """Grey values (H, W), float32, of raw bytes (H, W) or (H, W, 2)."""
    values = raw.float()  # before anything else: TensorRT can do nothing but this with bytes
    return values if values.ndim == 2 else values[..., 0] + LEVELS_OF_BYTE * values[..., 1]


def _median(values: torch.Tensor, first_step: torch.Tensor | float, steps: int) -> torch.Tensor:
    """The largest multiple of `first_step` / 2^(`steps` - 1) that fewer than half of the values are below."""
    half = 0.5 * values.numel()
    found, step = torch.zeros_like(values[0, 0]), first_step
    for _ in range(steps):
        candidate = found + step
        found = torch.where((values < candidate).float().sum() < half, candidate, found)
        step = 0.5 * step
    return found


def median_grey(pixels: torch.Tensor, bits: int) -> torch.Tensor:
    """The median (scalar) of whole grey values (H, W) below 2^`bits`, between two of them as their counts say."""
    value = _median(pixels, float(1 << (bits - 1)), bits)
    below = (pixels < value).float().sum()
    there = (pixels <= value).float().sum() - below
    return value - 0.5 + (0.5 * pixels.numel() - below) / there


def median_light(relative: torch.Tensor) -> torch.Tensor:
    """The median (scalar) of the relative brightness (H, W), to a few millionths of the largest."""
    largest = relative.amax(dim=(0, 1)).clamp(min=LEAST)
    return _median(relative, 0.5 * largest, FLAT_FIELD_STEPS)


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
        background = median_grey(pixels[::row_step], bits)
        return pixels * (scale / background.clamp(min=LEAST)) - scale, background
    dark, factor = flat_field
    relative = (pixels - dark) * factor
    light = median_light(relative[::row_step])
    return relative * (scale / light.clamp(min=LEAST)) - scale, light
