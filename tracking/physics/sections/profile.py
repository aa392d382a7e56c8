"""What a developed flow through a section is: its velocity over the section, and the shear at its wall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Wall:
    """The wall in short pieces, (W,) each: middle, length, and |dF/dn|, the shear rate at a mean velocity of 1."""

    y_um: FloatArray
    z_um: FloatArray
    length_um: FloatArray
    shear_per_um: FloatArray


class Profile(Protocol):
    """A developed flow at a mean velocity of 1.

    In a straight channel the velocity u e with u = U F(y, z) along its axis e satisfies continuity for any F. It
    satisfies the momentum equation of a liquid with the shear stress K |du/dn|^m (Newtonian: m = 1, K is the
    viscosity) if div(|grad u|^(m-1) grad u) = -G / K, where G is the pressure gradient.
    """

    @property
    def resistance(self) -> float:
        """G / (K U^m), um^-(1 + m)."""
        ...

    def at(self, y_um: FloatArray, z_um: FloatArray) -> FloatArray:
        """F, velocity over mean velocity, at points (N,); 0 outside."""
        ...

    def wall(self) -> Wall:
        """The shear at the wall."""
        ...
