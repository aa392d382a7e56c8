"""How the errors of a field model grow from where its particles are to where none is.

The weights of the modes are polynomials of the place, fitted to the particles of a scan. At another place (u, v)
the variance of what is left of the image's shape is, over that at a typical particle,

    a (1 + h(u, v) + c q(u, v))                  (1)

with the leverage h of the polynomials (Weisberg 2005, Applied Linear Regression, section 8): the coefficients are
as uncertain as the particles scatter. q is the mean square of the polynomials of the next degree, less what those
of the model explain of them at the particles, over its mean there: what the model leaves out for want of terms
grows like it. a and c come from the errors of left-out particles. c is averaged over, weighted by its likelihood,
so that few particles that are all inside do not say that nothing grows outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.refine.field import monomials, terms_of

FloatArray = npt.NDArray[np.float64]

RATIOS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Values of c, half a decade apart: from nothing to three quarters that the next degree would explain."""
FREEDOM = 2.0
"""Degrees of freedom in the errors of one particle over depth, which are alike from image to image."""
MOST = 25.0
"""h and q at most: further out the field has no particle at all, and no number holds."""
NEAREST = 0.1
"""1 - h at least of a left-out particle: nearer to 0 it alone decides a coefficient."""
LEAST = 0.05
"""Variance of a particle's errors over the typical one, at least, as the noise has been subtracted from it."""


@dataclass(frozen=True, slots=True, eq=False)
class Growth:
    """(1) for the particles of a scan.

    `inverse` (T, T) of the polynomials' normal matrix, and how the next degree's depend on them (`explained`, (T,
    S)), with their `scale` (S,) over the particles.
    """

    degree: int
    inverse: FloatArray
    explained: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, u: FloatArray, v: FloatArray, degree: int) -> Growth:
        """For particles at u, v (N,) and weights of a `degree`."""
        inner, outer = monomials(u, v, degree), monomials(u, v, degree + 1)[:, terms_of(degree) :]
        inverse: FloatArray = np.asarray(np.linalg.pinv(inner.T @ inner), np.float64)
        explained: FloatArray = inverse @ inner.T @ outer
        left = outer - inner @ explained
        scale: FloatArray = np.asarray(np.maximum(np.sqrt((left**2).mean(axis=0)), 1e-6), np.float64)
        return cls(degree, inverse, explained, scale)

    def leverage(self, u: FloatArray, v: FloatArray) -> FloatArray:
        """h (M,) at places (M,)."""
        inner = monomials(u, v, self.degree)
        found: FloatArray = np.minimum(np.einsum("nt,ts,ns->n", inner, self.inverse, inner), MOST)
        return found

    def left_out(self, u: FloatArray, v: FloatArray) -> FloatArray:
        """q (M,) at places (M,)."""
        outer = monomials(u, v, self.degree + 1)[:, terms_of(self.degree) :]
        left = (outer - monomials(u, v, self.degree) @ self.explained) / self.scale
        found: FloatArray = np.minimum((left**2).mean(axis=1), MOST)
        return found

    def factors(
        self,
        squares: FloatArray,
        unsure: FloatArray,
        at: tuple[FloatArray, FloatArray],
        to: tuple[FloatArray, FloatArray],
    ) -> FloatArray:
        """(1) at places `to` (M,), from squared errors (N,) of left-out particles `at` u, v (N,), over typical
        ones.

        `unsure` (N,) are the standard errors of the squared ones from noise, which has been subtracted.
        """
        kept = np.maximum(1.0 - self.leverage(*at), NEAREST)
        here = [1.0 / kept + ratio * self.left_out(*at) / kept**2 for ratio in RATIOS]
        there = [1.0 + self.leverage(*to) + ratio * self.left_out(*to) for ratio in RATIOS]
        says = 1.0 / (1.0 + unsure**2)
        level = [max(float((says * squares / one).sum() / says.sum()), LEAST) for one in here]
        likely = np.empty(len(RATIOS))
        for n, (a, one) in enumerate(zip(level, here, strict=True)):
            variance = a * one + unsure
            likely[n] = -0.5 * FREEDOM * (np.log(variance) + np.maximum(squares + unsure, 0) / variance).sum()
        weight = np.exp(likely - likely.max()) * np.array(level)
        found: FloatArray = weight @ np.array(there) / np.exp(likely - likely.max()).sum()
        return found * few(len(squares) * FREEDOM)


def few(freedom: float) -> float:
    """Variance of a new error over one that was estimated with some degrees of freedom (Student)."""
    return freedom / (freedom - 2.0) if freedom > 3.0 else 3.0
