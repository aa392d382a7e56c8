"""The covariance of a weighted fit from the scatter of the tracks themselves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

DISTINCT = 1e-10
"""Least eigenvalue of the curvature scaled to a diagonal of 1: below it is rounding."""
SMALLEST_CURVATURE = 1e-300
MOST_LEVERAGE = 0.9
"""Part of its own prediction that a track may decide before its residual says nothing."""
LEAST_FIRM = 0.5
"""Where no flow fits the tracks, and most are half in, half out, the correction ends here."""


def safe_inverse(curvature: FloatArray) -> FloatArray:
    """The inverse, by way of a diagonal of 1; what the data do not tell apart gets a large variance."""
    size = np.sqrt(np.maximum(np.diag(curvature), SMALLEST_CURVATURE))
    values, vectors = np.linalg.eigh(curvature / np.outer(size, size))
    inverse: FloatArray = (vectors / np.maximum(values, DISTINCT)) @ vectors.T / np.outer(size, size)
    return inverse


def robust_covariance(
    jacobian: FloatArray,
    weight: FloatArray,
    residual: FloatArray,
    confidence: FloatArray,
    follows: FloatArray,
) -> FloatArray:
    """The sandwich (White, Econometrica 50, 1, 1982), (P, P), of a fit of P parameters to M tracks.

    See `parts_of_covariance`.
    """
    firm, scatter = parts_of_covariance(jacobian, weight, residual, confidence, follows)
    inverse = safe_inverse(firm + np.diag(confidence))
    covariance: FloatArray = inverse @ (scatter + np.diag(confidence)) @ inverse
    return covariance


def parts_of_covariance(
    jacobian: FloatArray,
    weight: FloatArray,
    residual: FloatArray,
    confidence: FloatArray,
    follows: FloatArray,
    group: IntArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """How much pull the tracks lose, and how much of it is chance, by parameter: (P, P) each.

    `jacobian` (axes, M, P), `weight` and `residual` (axes, M) are those at its end, `confidence` (P,) is 1 /
    sigma^2 of what was known before, and `follows` (M,) the probability with which each track counts. The
    curvature is from the weights, and the scatter from the tracks, where each residual is what it would be without
    that track in the fit (HC3; MacKinnon & White, J. Econometrics 29, 305, 1985). Tracks of the same `group` (M,),
    such as pieces of one, are not taken as independent: see `_scores_of_groups`.

    A track that moves away from the flow also loses weight: its pull changes by less than its weight, on average by
    the share `firm` of it (Huber & Ronchetti, Robust Statistics, 2009, section 7.6).
    """
    both = ((0, 1), (0, 1))
    weighted = jacobian * weight[..., None]
    inverse = safe_inverse(np.tensordot(weighted, jacobian, both) + np.diag(confidence))
    if group is None:
        leverage = np.einsum("amp,pq,amq,am->m", jacobian, inverse, jacobian, weight, optimize=True)
        scores = ((weight * residual)[..., None] * jacobian).sum(axis=0)
        scores /= (1.0 - np.minimum(leverage, MOST_LEVERAGE))[:, None]
    else:
        root = np.sqrt(weight)
        scores = _scores_of_groups(jacobian * root[..., None], residual * root, inverse, group)
    square = weight * residual**2  # follows * residual^2 / variance
    firm = 1.0 - ((1.0 - follows) * square).sum(axis=1) / max(float(follows.sum()), 1e-300)
    firm = np.maximum(firm, LEAST_FIRM)
    return np.tensordot(weighted * firm[:, None, None], jacobian, both), scores.T @ scores


def _scores_of_groups(
    jacobian: FloatArray, residual: FloatArray, inverse: FloatArray, group: IntArray
) -> FloatArray:
    """Pull (groups, P) of each group, with residuals as large as the errors are, from `jacobian` (axes, M, P) and
    `residual` (axes, M) over the standard errors.

    The fit follows a group by its leverage H, a matrix over all its velocities, and leaves residuals of covariance
    1 - H: they are multiplied by the inverse root of that (CR2; Bell & McCaffrey, Survey Methodology 28, 169,
    2002). The sum of H in place of it would count what one velocity decides against all others of the track: with
    as many parameters as a region has, the errors at its openings then come out 1.3 times too large."""
    size = jacobian.shape[2]
    order = np.argsort(group, kind="stable")
    _, start, count = np.unique(group[order], return_index=True, return_counts=True)
    scores = np.empty((count.size, size))
    for length in np.unique(count):
        these = np.flatnonzero(count == length)
        members = order[start[these][:, None] + np.arange(length)]
        own = np.moveaxis(jacobian[:, members], 0, 1).reshape(these.size, -1, size)
        off = np.moveaxis(residual[:, members], 0, 1).reshape(these.size, -1, 1)
        values, vectors = np.linalg.eigh(own @ inverse @ own.transpose(0, 2, 1))
        freed = 1.0 / np.sqrt(1.0 - np.minimum(values, MOST_LEVERAGE))
        off = vectors @ (freed[..., None] * (vectors.transpose(0, 2, 1) @ off))
        scores[these] = (own * off).sum(axis=1)
    return scores
