"""What each axis counts in the mean D."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tracking.physics.diffusion.lasting import AxisDiffusion
from tracking.physics.diffusion.theory import published_variance


def weights_of(
    axes: Sequence[AxisDiffusion], interval_s: float, displacements: int
) -> npt.NDArray[np.float64]:
    """The weights of the axes (axes,), which add up to 1; 0 for those that are not used.

    They are the information that an axis would have if D were the same along all: the errors found depend on the D
    found, and with them smaller values would count more.
    """
    used = np.array([axis.used for axis in axes], np.bool_)
    if not used.any():
        return np.zeros(used.size)
    d = np.array([axis.um2_s for axis in axes])
    noise = np.array([axis.localisation_um**2 for axis in axes])
    common = max(float(np.median(d[used])), 0.0)
    weight = np.zeros(used.size)
    weight[used] = 1.0 / published_variance(common, noise[used], interval_s, displacements)
    found: npt.NDArray[np.float64] = weight / weight.sum()
    return found
