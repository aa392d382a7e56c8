"""Memory for frames, allocated once: a pool of slots of the size of an image."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from stream.messages import ImageArray


class FrameRing:
    """Slots for `slots` images of one shape and type; `put` copies an image into a free one."""

    def __init__(self, slots: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Allocate everything and touch it, so that no frame waits for memory later."""
        self._images = np.empty((slots, *shape), dtype)
        self._images.fill(0)
        self._free = list(range(slots - 1, -1, -1))

    @property
    def free(self) -> int:
        """Free slots."""
        return len(self._free)

    @property
    def slots(self) -> int:
        """All slots."""
        return len(self._images)

    def put(self, image: ImageArray) -> int:
        """Copy an image into a free slot and return its number; raises `IndexError` without a free slot."""
        slot = self._free.pop()
        try:
            np.copyto(self._images[slot], image, casting="no")
        except (TypeError, ValueError):
            self._free.append(slot)
            raise
        return slot

    def image(self, slot: int) -> ImageArray:
        """The image in a slot: a view, valid until the slot is given back."""
        image: ImageArray = self._images[slot]
        return image

    def give_back(self, slot: int) -> None:
        """Make a slot free again; may be called from another thread."""
        self._free.append(slot)


def slots_for(memory_mb: float, image_bytes: int, rate_hz: float, seconds: float) -> int:
    """How many images of `image_bytes` to hold, at least one.

    As many as `seconds` have at `rate_hz` (0: not known, so as many as there is memory for), in `memory_mb`.
    """
    fit = int(memory_mb * 2**20) // max(1, image_bytes)
    wanted = math.ceil(rate_hz * seconds) + 1 if rate_hz > 0 else fit
    return max(1, min(fit, wanted))
