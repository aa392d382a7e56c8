"""Shapes of what a GPU gets for a frame and of what it returns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.network.layout import CHANNELS, SLOTS, STRIDE, class_values
from engines.network.preparation import SAMPLED_ROWS, padded

MOST_KEPT = 3840
"""Largest number that TensorRT's TopK returns."""
FEWEST_STRIPS = 16
"""Strips that a frame is divided into at least, so that each selects from few slots."""
MOST_PARTICLES = 4000
"""Particles for whose slots there is room: with more, reading all maps is as fast."""
SLOTS_A_PARTICLE = 3
"""Slots above the least logit per particle: 2 to 3 with the shipped network."""
UNEVEN = 2
"""Room of a strip, in units of its share of the slots, as particles are not spread evenly. A strip that overflows
costs a full read of the frame, but no particle."""

INDEX = 0
BACKGROUND, MEAN, COUNTS = 0, 1, 2
"""Places in the summary: the background, the mean of all maps, then a count for each strip."""


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """The frames that a program is made for: (H, W) pixels of 1 or 2 bytes, with or without a flat field.

    `particles` is the number for which there is room; frames with more take longer. `kinds` are the classes of
    particles that the network tells apart.
    """

    height: int
    width: int
    bytes_per_pixel: int
    flat_field: bool
    particles: int
    kinds: int = 1

    @classmethod
    def of(
        cls, shape: tuple[int, int], dtype: np.dtype[Any], flat_field: bool, particles: int, kinds: int = 1
    ) -> FrameFormat:
        """The format of images of `shape` and `dtype` (uint8 or uint16)."""
        room_for = min(particles, MOST_PARTICLES)
        return cls(shape[0], shape[1], np.dtype(dtype).itemsize, flat_field, room_for, kinds)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Of the bytes on the GPU: (H, W), or (H, W, 2) low byte first."""
        pixels = (self.height, self.width)
        return pixels if self.bytes_per_pixel == 1 else (*pixels, 2)

    @property
    def row_step(self) -> int:
        """Step between the rows used for the background, as on the processor."""
        return max(1, self.height // SAMPLED_ROWS)

    @property
    def cells(self) -> tuple[int, int]:
        """Cells of the network's maps, down and across."""
        return padded(self.height) // STRIDE, padded(self.width) // STRIDE

    @property
    def strips(self) -> int:
        """Strips of equally many rows of cells; the strongest slots of each are kept."""
        rows = self.cells[0]
        fewest = max(FEWEST_STRIPS, math.ceil(self._room / MOST_KEPT))
        return next((n for n in range(fewest, rows) if rows % n == 0), rows)

    @property
    def kept(self) -> int:
        """Slots kept of a strip."""
        slots = SLOTS * self.cells[0] * self.cells[1] // self.strips
        return min(slots, MOST_KEPT, math.ceil(self._room / self.strips))

    @property
    def _room(self) -> int:
        return UNEVEN * SLOTS_A_PARTICLE * self.particles

    @property
    def kept_shape(self) -> tuple[int, int, int]:
        """Of the kept slots: strips, slots, and the values of a slot after its index in the strip."""
        return self.strips, self.kept, 1 + self.values

    @property
    def summary_shape(self) -> tuple[int]:
        """Of the summary."""
        return (COUNTS + self.strips,)

    @property
    def maps_shape(self) -> tuple[int, int, int, int, int]:
        """Of the network's maps, which stay on the GPU."""
        return 1, *self.cells, SLOTS, self.values

    @property
    def values(self) -> int:
        """Values of a slot, those of the network's `layout`."""
        return CHANNELS + class_values(self.kinds)
