"""A stack as the networks take it, in training and in use."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MULTIPLE = (2, 4, 4)
"""A stack's size along z, y and x is padded to multiples of these, by which the network's pools shrink it."""


def normalised(
    image: npt.NDArray[Any], missing: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float32]:
    """The stack with mean 0 and standard deviation 1. The instance norm makes scale and offset immaterial.

    But the convolutions add zeros around the stack, which so are its mean, as is what stands for slices that are
    `missing` (Z,). A stack of one value is all zeros.
    """
    there = image if missing is None else image[~missing]
    if not there.size:
        return np.zeros(image.shape, np.float32)
    mean, deviation = float(there.mean(dtype=np.float64)), float(there.std(dtype=np.float64))
    given = np.asarray((image - np.float32(mean)) / np.float32(deviation or 1.0), np.float32)
    if missing is not None:
        given[missing] = 0
    return given


def padded(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The stack, mirrored at its end to `MULTIPLE`s along z, y and x.

    A stack too thin to be mirrored repeats its last slice.
    """
    more = [(0, -count % of) for count, of in zip(image.shape, MULTIPLE, strict=True)]
    thin = any(extra >= count for (_, extra), count in zip(more, image.shape, strict=True))
    return np.pad(image, more, "edge" if thin else "reflect")
