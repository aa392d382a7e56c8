"""Ranges of the numbers in the GPU program, the same in torch and in ONNX."""

from __future__ import annotations

from engines.network.preparation import LEVELS_OF_LIGHT

LEVELS_OF_BYTE = 256
LIGHT_BITS = 18
"""Binary digits of relative brightness, `LEVELS_OF_LIGHT` to 1: up to 8 times the bright reference."""
MOST_LIGHT = (1 << LIGHT_BITS) / LEVELS_OF_LIGHT
"""Light, relative to the bright reference, beyond which it cannot be measured."""
LEAST = 1e-6
"""Divisor in place of a background of 0; such frames are left out afterwards."""
LARGEST_HALF = 4096.0
"""Contrast, in standard deviations of the noise, at which it is clipped in half precision, which ends at 65504."""
