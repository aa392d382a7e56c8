"""Light scattered by a transparent sphere: the Mie series (Bohren & Huffman 1983, chapter 4)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]


def mie_coefficients(size_parameter: float, relative_index: float) -> tuple[ComplexArray, ComplexArray]:
    """Return the expansion coefficients a_n, b_n, n = 1 ... N, of the scattered wave (eqs. 4.56, 4.57).

    With the Riccati-Bessel functions psi_n(r) = r j_n(r) and xi_n(r) = r h_n^(1)(r):

        a_n = [m psi_n(mx) psi_n'(x) - psi_n(x) psi_n'(mx)] / [m psi_n(mx) xi_n'(x) - xi_n(x) psi_n'(mx)]
        b_n = [psi_n(mx) psi_n'(x) - m psi_n(x) psi_n'(mx)] / [psi_n(mx) xi_n'(x) - m xi_n(x) psi_n'(mx)]

    Parameters
    ----------
    size_parameter
        x = pi diameter n_medium / wavelength.
    relative_index
        m = n_particle / n_medium, real.

    The series ends at N = x + 4.05 x^(1/3) + 2 (Wiscombe, Applied Optics 19, 1505, 1980): the last term is
    below 3e-9 of the first for spheres of 0.5 to 20 um.
    """
    x, m = size_parameter, relative_index
    n = np.arange(int(x + 4.05 * x ** (1 / 3) + 2) + 1)

    def riccati(function: np.ufunc, argument: float) -> tuple[FloatArray, FloatArray]:
        """r f_n(r) and its slope by r, r f_(n-1)(r) - n f_n(r), of a spherical Bessel function f."""
        times_r = np.sqrt(0.5 * np.pi * argument) * function(n + 0.5, argument)
        return times_r[1:], times_r[:-1] - n[1:] / argument * times_r[1:]

    psi_x, psi_x_slope = riccati(special.jv, x)
    psi_mx, psi_mx_slope = riccati(special.jv, m * x)
    chi, chi_slope = riccati(special.yv, x)
    xi, xi_slope = psi_x + 1j * chi, psi_x_slope + 1j * chi_slope
    a = (m * psi_mx * psi_x_slope - psi_x * psi_mx_slope) / (m * psi_mx * xi_slope - xi * psi_mx_slope)
    b = (psi_mx * psi_x_slope - m * psi_x * psi_mx_slope) / (psi_mx * xi_slope - m * xi * psi_mx_slope)
    return a.astype(complex), b.astype(complex)


def scattering_amplitudes(
    size_parameter: float, relative_index: float, angle_rad: FloatArray
) -> tuple[ComplexArray, ComplexArray]:
    """Return S1 and S2 (eq. 4.74) at scattering angles theta of shape (M,), each of shape (M,).

    S1 = sum (2n + 1) / (n (n + 1)) (a_n pi_n + b_n tau_n), S2 the same with pi_n and tau_n exchanged; the angular
    functions pi_n and tau_n of mu = cos(theta) follow the recurrence of eq. 4.47. The scattered far field is the
    incident one times exp(ikr) / (-ikr) times S, for exp(-i omega t) (eq. 3.12).
    """
    a, b = mie_coefficients(size_parameter, relative_index)
    return amplitudes(a, b, angular_functions(a.size, angle_rad))


def amplitudes(
    a: ComplexArray, b: ComplexArray, functions: tuple[FloatArray, FloatArray]
) -> tuple[ComplexArray, ComplexArray]:
    """Return S1 and S2 (M,) of coefficients (N,), with `angular_functions` of N or more rows."""
    pi, tau = (rows[: a.size] for rows in functions)
    return a @ pi + b @ tau, a @ tau + b @ pi


def angular_functions(count: int, angle_rad: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (2n + 1) / (n (n + 1)) times pi_n and tau_n, n = 1 ... count, at angles (M,), each (count, M)."""
    mu = np.cos(angle_rad)
    pi, tau = np.empty((2, count, mu.size))
    before, here = np.zeros_like(mu), np.ones_like(mu)
    for n in range(1, count + 1):
        weight = (2 * n + 1) / (n * (n + 1))
        pi[n - 1], tau[n - 1] = weight * here, weight * (n * mu * here - (n + 1) * before)
        before, here = here, ((2 * n + 1) * mu * here - (n + 1) * before) / n
    return pi, tau


def extinction_efficiency(size_parameter: float, relative_index: float) -> float:
    """Return Q_ext = (2 / x^2) sum (2n + 1) Re(a_n + b_n) (eq. 4.62): extinction over geometric cross-section."""
    a, b = mie_coefficients(size_parameter, relative_index)
    n = np.arange(1, a.size + 1)
    return float(2 / size_parameter**2 * np.sum((2 * n + 1) * (a + b).real))
