"""How much the sums of a segment's displacements scatter, and the published variance of D that follows from it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

AT_ONCE = 2000
"""Segments whose matrices are in memory together: 4 MB each with 16 displacements."""


def scatter_of_sums(
    over_s: FloatArray, steps: IntArray, um2_s: float, s_um2: float, *, drift: bool
) -> FloatArray:
    """Covariance (2, 2, K) of the sums of d_i^2 and of d_i d_i+1 in segments of times `over_s` (K, L).

    For normal displacements with covariance S, of which q = d' H d, cov(q_a, q_b) = 2 tr(H_a S H_b S).
    """
    parts = [
        _scatter(over_s[at : at + AT_ONCE], steps[at : at + AT_ONCE], um2_s, s_um2, drift=drift)
        for at in range(0, steps.size, AT_ONCE)
    ]
    return np.concatenate(parts, axis=2) if parts else np.empty((2, 2, 0))


def _scatter(u: FloatArray, steps: IntArray, um2_s: float, s_um2: float, *, drift: bool) -> FloatArray:
    length = u.shape[1]
    index = np.arange(length)
    inside = index < steps[:, None]
    matrix = np.zeros((steps.size, length, length))
    matrix[:, index, index] = np.where(inside, 2.0 * um2_s * u + 2.0 * s_um2, 0.0)
    off = np.where(inside[:, 1:], -s_um2, 0.0)
    matrix[:, index[1:], index[:-1]] = off
    matrix[:, index[:-1], index[1:]] = off
    if drift:
        part = u / np.maximum(u.sum(axis=1), 1e-300)[:, None]
        matrix = matrix - part[:, :, None] * matrix.sum(axis=1)[:, None, :]
        matrix = matrix - matrix.sum(axis=2)[:, :, None] * part[:, None, :]
    shifted = np.zeros_like(matrix)
    shifted[:, 1:] += 0.5 * matrix[:, :-1]
    shifted[:, :-1] += 0.5 * matrix[:, 1:]
    squares = 2.0 * np.einsum("kij,kji->k", matrix, matrix)
    both = 2.0 * np.einsum("kij,kji->k", matrix, shifted)
    products = 2.0 * np.einsum("kij,kji->k", shifted, shifted)
    return np.stack([np.stack([squares, both]), np.stack([both, products])])


def published_variance(
    um2_s: npt.ArrayLike,
    s_um2: npt.ArrayLike,
    interval_s: npt.ArrayLike,
    steps: npt.ArrayLike,
    *,
    known_error: bool = False,
) -> FloatArray:
    """Variance of the covariance-based D of one track without drift (Vestergaard et al. 2014, eqs. 17 and 18).

    `s_um2` is sigma^2 - D e / 3. Written without a division by D, so that particles at rest have a variance too.
    """
    d, n = np.asarray(um2_s, np.float64), np.maximum(np.asarray(steps, np.float64), 1.0)
    noise = np.asarray(s_um2, np.float64) / np.asarray(interval_s, np.float64)
    if known_error:
        known: FloatArray = (2.0 * d**2 + 4.0 * noise * d + 3.0 * noise**2) / n
        return known
    variance: FloatArray = (6.0 * d**2 + 4.0 * noise * d + 2.0 * noise**2) / n + 4.0 * (d + noise) ** 2 / n**2
    return variance
