"""Particles that are darker than what surrounds them: the volume is turned over, and they are bright."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def inverted(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The volume with dark and bright exchanged, read-only: the type's largest grey value less each of its own.

    Its noise falls with the grey value where it is shot noise, so that it is taken as even
    (`estimate_surroundings`).
    """
    turned: npt.NDArray[Any] = np.subtract(np.iinfo(image.dtype).max, image, dtype=image.dtype)
    turned.flags.writeable = False
    return turned
