"""Rounds the columns of a trajectory file far below their errors, so that they can be compressed.

Positions are multiples of a step, other numbers keep some bits of their mantissa. Digits that are noise cannot be
compressed and would be two thirds of the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

OF_PROPERTY = "sigma_property"
"""The standard error of a property, whatever its name. Its value is kept in single precision: a refractive index is
known to some 1e-4 at best, a thousand times the rounding."""
STEPS_PER_UM = {"x_um": 2.0**12, "y_um": 2.0**12, "z_um": 2.0**9, "z_other_um": 2.0**9}
STEPS_PER_UM |= {"z_detected_um": 2.0**9, "z_other_detected_um": 2.0**9}
"""Steps of 0.24 nm in the plane and 2 nm in depth, far below the best localisation errors (about 10 nm in the
plane). Rounding adds an error of step / sqrt(12); each halving of a step costs a bit a row and axis."""
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
    "p_side": 7,
    "p_kind": 7,
    "p_other": 7,
    "sigma_z_detected_um": 6,
    "p_kind_detected": 7,
    "time_offset_s": 15,
    OF_PROPERTY: 6,
}
"""Bits of the mantissa that are kept. n bits are a relative error of at most 2^-(n + 1): 1 in 128 for standard
errors, which are hardly known to 1 in 10, and 1 in 1,024 for velocities. Each bit more costs a bit a row."""
STORED_BITS = 23


def rounded(name: str, values: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """A column (N,) as it is stored; columns of whole numbers are unchanged. NaN and infinities stay."""
    if name in STEPS_PER_UM:
        stepped: npt.NDArray[np.float64] = to_steps(values, STEPS_PER_UM[name])
        return stepped
    if name in MANTISSA_BITS:
        short: npt.NDArray[np.float32] = to_bits(values, STORED_BITS - MANTISSA_BITS[name])
        return short
    return values


def warmup() -> None:
    """Compile (or load) the machine code, so that no frame of a live run waits for it."""
    for name in (*STEPS_PER_UM, *MANTISSA_BITS):
        rounded(name, np.zeros((2, 1))[1])


@njit(cache=True, nogil=True, error_model="numpy")
def to_steps(values, steps):  # type: ignore[no-untyped-def]
    """The nearest multiples of 1 / `steps`."""
    out = np.empty(values.size)
    for i in range(values.size):
        out[i] = np.rint(values[i] * steps) / steps
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def to_bits(values, drop):  # type: ignore[no-untyped-def]
    """Single precision without the last `drop` bits of the mantissa, rounded to nearest."""
    out = np.empty(values.size, np.float32)
    bits = out.view(np.uint32)
    half = np.uint32(1 << (drop - 1))
    mask = np.uint32(0xFFFFFFFF ^ ((1 << drop) - 1))
    infinite = np.uint32(0x7F800000)
    for i in range(values.size):
        out[i] = values[i]
        if bits[i] & infinite != infinite:
            bits[i] = (bits[i] + half) & mask
    return out
