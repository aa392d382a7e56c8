"""The absolute height of each row of a trajectory file."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tracking.trajectories.columns import Trajectories

FloatArray = npt.NDArray[np.float64]


def heights_um(trajectories: Trajectories) -> FloatArray:
    """Absolute height of each row, um: refraction factor times (focus + z); focus 0 where there is none."""
    if len(trajectories) == 0:
        return np.empty(0)
    focus_um = np.nan_to_num(trajectories.of_frame("focus_um"))
    height: FloatArray = factor_of(trajectories.attributes) * (focus_um + trajectories.z_um)
    return height


def factor_of(attributes: dict[str, Any]) -> float:
    """Height in the sample per travel of the focus drive; 1 in files that do not say."""
    return float(attributes.get("refraction_factor", 1.0))
