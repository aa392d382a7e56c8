"""Polynomials over the depth of a region: those of the velocity vanish at floor and ceiling.

With z from -1 at the floor to 1 at the ceiling, the velocity has phi_k = (L_(k+1) - L_(k-1)) / sqrt(2 (2 k + 1)),
k = 1 to N - 1, with Legendre's polynomials L (Shen, SIAM J. Sci. Comput. 15, 1489, 1994): the integrals of
phi_k' phi_l' are the unit matrix. The pressure has L_j, j = 0 to N - 2, so that no pressure is without an effect on
the velocity (Bernardi & Maday, Spectral methods, Handbook of Numerical Analysis V, 1997).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre

FloatArray = npt.NDArray[np.float64]


def velocity_functions(z: npt.ArrayLike, count: int, derivative: int = 0) -> FloatArray:
    """phi_1 to phi_count, or their derivatives, at z in -1 to 1: (..., count)."""
    place = np.asarray(z, np.float64)
    coefficients: FloatArray = np.zeros((count + 2, count))
    for k in range(1, count + 1):
        scale = np.sqrt(2.0 * (2.0 * k + 1.0))
        coefficients[k + 1, k - 1], coefficients[k - 1, k - 1] = 1.0 / scale, -1.0 / scale
    if derivative:
        coefficients = np.asarray(legendre.legder(coefficients, derivative, axis=0), np.float64)
    values: FloatArray = np.moveaxis(np.asarray(legendre.legval(place, coefficients), np.float64), 0, -1)
    return values


def clamped_functions(z: npt.ArrayLike, count: int) -> FloatArray:
    """Polynomials of the degrees 4 to count + 3 that vanish with their slopes at z = -1 and 1: (..., count).

    L_k - 2 (2 k + 5) / (2 k + 7) L_(k+2) + (2 k + 3) / (2 k + 7) L_(k+4), k from 0 (Shen, see above, section 4).
    """
    coefficients: FloatArray = np.zeros((count + 4, count))
    for k in range(count):
        last = 2.0 * k + 7.0
        coefficients[[k, k + 2, k + 4], k] = 1.0, -2.0 * (2.0 * k + 5.0) / last, (2.0 * k + 3.0) / last
    values = np.asarray(legendre.legval(np.asarray(z, np.float64), coefficients), np.float64)
    return np.moveaxis(values, 0, -1)


def overlap(count: int) -> FloatArray:
    """Integrals of phi_k phi_l, (count, count)."""
    z, weight = legendre.leggauss(count + 2)
    phi = velocity_functions(z, count)
    product: FloatArray = phi.T @ (weight[:, None] * phi)
    return np.where(np.abs(product) > 1e-14, product, 0.0)


def pressure_overlap(count: int, derivative: int) -> FloatArray:
    """Integrals of L_j phi_k, or of L_j phi_k', (count, count): j = 0 to count - 1, k = 1 to count."""
    z, weight = legendre.leggauss(count + 2)
    phi = velocity_functions(z, count, derivative)
    product: FloatArray = legendre.legvander(z, count - 1).T @ (weight[:, None] * phi)
    return np.where(np.abs(product) > 1e-14, product, 0.0)


def projected(values: FloatArray, z: FloatArray, weight: FloatArray, count: int) -> FloatArray:
    """Coefficients (..., count) of the phi nearest, in the mean square, to values (..., Z) at Gauss points z."""
    phi = velocity_functions(z, count)
    moments = (phi * weight[:, None]).T @ values[..., None]
    return np.asarray(np.linalg.solve(overlap(count), moments)[..., 0], np.float64)
