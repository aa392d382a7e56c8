"""PSF models over a quantity other than depth: where its nodes are, and which it is where none is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from engines.refine.psf import FitModel
from engines.refine.quantity import HALF_SPAN_UM, Quantity

FloatArray = npt.NDArray[np.float64]

INNER_NODES = 9
"""Nodes over the range of the number."""
ROOM = 2
"""Nodes beyond the range at both ends, which a cubic spline needs."""
SIZE = "relative_size"
SIZES = (0.85, 1.15)
"""Without a number that changes the image, it is its size, over that of the mean object: lenses and objects
differ."""
CLEARLY = 0.8
"""A number has to lower the misfit to this part of what it is without, so as not to be chosen by chance."""


def values_of_nodes(low: float, high: float) -> FloatArray:
    """The values (J,) of a number at nodes, where its range is from `low` to `high`."""
    return np.asarray(
        low + (high - low) / (INNER_NODES - 1) * (np.arange(INNER_NODES + 2 * ROOM) - ROOM), np.float64
    )


def model_over(quantity: Quantity, coefficients: FloatArray, **measured: Any) -> FitModel:
    """The PSF model with spline coefficients (J, H, H) at the nodes of a quantity, and what `FitModel.of` takes."""
    step_um = 2 * HALF_SPAN_UM / (INNER_NODES - 1)
    return FitModel.of(
        np.ascontiguousarray(coefficients, np.float32),
        -HALF_SPAN_UM - ROOM * step_um,
        step_um,
        (-HALF_SPAN_UM, HALF_SPAN_UM),
        quantity=quantity,
        **measured,
    )
