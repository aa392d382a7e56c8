"""How finely the columns of a trajectory file are kept: far below their errors, so that the rest can be compressed.

Positions are multiples of a step, other numbers keep so many bits of their mantissa. Digits that are noise cannot
be compressed and would be two thirds of the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

STEPS_PER_UM = {"x_um": 2.0**12, "y_um": 2.0**12, "z_um": 2.0**9}
MANTISSA_BITS = {
    "sigma_x_um": 6,
    "sigma_y_um": 6,
    "sigma_z_um": 6,
    "vx_um_s": 9,
    "vy_um_s": 9,
    "vz_um_s": 9,
    "sigma_vx_um_s": 6,
    "sigma_vy_um_s": 6,
    "sigma_vz_um_s": 6,
    "brightness": 8,
    "confidence": 7,
}
STORED_BITS = 23


def rounded(name: str, values: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """A column (N,) as it is stored; unchanged if its numbers are whole. NaN and infinities stay."""
    if name in STEPS_PER_UM:
        steps = STEPS_PER_UM[name]
        nearest: npt.NDArray[np.float64] = np.rint(values * steps) / steps
        return nearest
    if name not in MANTISSA_BITS:
        return values
    single = values.astype(np.float32)
    drop = STORED_BITS - MANTISSA_BITS[name]
    bits = single.view(np.uint32)
    kept = (bits + np.uint32(1 << (drop - 1))) & np.uint32(-(1 << drop) & 0xFFFFFFFF)
    return np.where(np.isfinite(single), kept.view(np.float32), single)
