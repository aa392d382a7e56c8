"""Terms of the field model: polynomials of the place and of the brightness, scaled to the particles of the scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.refine.field import monomials, powers

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Design:
    """Degrees of the polynomials of place and of the logarithm of the brightness; (0, 0) is the mean image
    alone."""

    degree: int = 0
    brightness_degree: int = 0

    def raw(self, u: FloatArray, v: FloatArray, b: FloatArray) -> FloatArray:
        """The polynomials (N, T), the first is 1."""
        return np.hstack([monomials(u, v, self.degree), powers(b, self.brightness_degree)])

    @property
    def count(self) -> int:
        """T."""
        return int(self.raw(np.zeros(1), np.zeros(1), np.zeros(1)).shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """The polynomials of a `Design`, all but the first with mean 0 and standard deviation 1 over the particles.

    Then the first spline is the mean image, and one ridge fits all others.
    """

    design: Design
    mean: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, design: Design, u: FloatArray, v: FloatArray, b: FloatArray) -> Terms:
        """Scaled to particles at u, v (N,) with logarithms b (N,) of the brightness."""
        raw = design.raw(u, v, b)
        mean, scale = raw.mean(axis=0), raw.std(axis=0)
        mean[0], scale[0] = 0.0, 1.0
        return cls(design, mean, np.where(scale > 1e-9, scale, 1.0))

    def at(self, u: FloatArray, v: FloatArray, b: FloatArray) -> FloatArray:
        """The terms (N, T)."""
        found: FloatArray = (self.design.raw(u, v, b) - self.mean) / self.scale
        return found

    def weights(self, mixed: FloatArray) -> FloatArray:
        """Weights (M, T) on the raw polynomials of what has weights (M, T) on the terms."""
        out = mixed / self.scale
        out[:, 0] -= (mixed[:, 1:] * (self.mean / self.scale)[1:]).sum(axis=1)
        return out
