"""How far each named change of the image is in what a fit has left, for one particle and for many.

For a particle with residual r, weights W, derivatives J by what was fitted (x, y, z, brightness, a plane of
background) and the images D of the named changes, what of D the fit cannot imitate is

    D' = D - J (J^T W J)^-1 J^T W D,

and
    s = D'^T W r,    G = D'^T W D'                                                                        (1)

are the efficient score and its information (Rao 1948, Math. Proc. Cambridge 44, 50; with parameters that are not of
interest: Cox & Hinkley 1974, section 9.3). Over many particles, which share the change p,

    p = (sum G)^-1 sum s,    cov = (sum G)^-1 [sum u u^T] (sum G)^-1,    u = s - G p                      (2)

The covariance is from the scatter of the particles (White 1982, Econometrica 50, 1), since they are not alike:
their sizes change the image as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engines.refine.arguments import FloatArray

RIDGE = 1e-9
"""Of the diagonal, added before it is inverted: for what a particle says nothing about."""
TINY = 1e-30
FEWEST = 12
"""Particles from which (2) is used: more than there are named changes, so that their scatter is known at all."""


class Score(NamedTuple):
    """Of one particle: s (K,), G (K, K), and the reduced chi-square of its residual."""

    score: FloatArray
    information: FloatArray
    chi_square: float


class Estimate(NamedTuple):
    """p (K,) and its standard errors (K,), from `particles`; infinite errors where they say nothing."""

    value: FloatArray
    error: FloatArray
    particles: int


def score(residual: FloatArray, weight: FloatArray, own: FloatArray, changes: FloatArray) -> Score:
    """(1), from a residual (H, W), its weights (H, W), derivatives (4, H, W) and named changes (K, H, W)."""
    height, width = residual.shape
    u, v = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
    rows = np.empty((1 + len(changes) + len(own) + 3, height, width))
    kinds = len(changes)
    rows[0], rows[1 : 1 + kinds], rows[1 + kinds : -3] = residual, changes, own
    rows[-3], rows[-2], rows[-1] = 1.0, u, v
    flat = rows.reshape(len(rows), -1)
    products = (flat * weight.ravel()) @ flat.T
    fitted = slice(1 + kinds, None)
    scale = np.sqrt(np.maximum(np.diag(products)[fitted], TINY))
    within = products[fitted, fitted] / np.outer(scale, scale) + RIDGE * np.eye(scale.size)
    across = products[fitted, : 1 + kinds] / scale[:, None]
    rest = products[: 1 + kinds, : 1 + kinds] - across.T @ np.linalg.solve(within, across)
    return Score(rest[1:, 0], rest[1:, 1:], float(rest[0, 0]) / max(residual.size - scale.size, 1))


def estimate(scores: FloatArray, information: FloatArray) -> Estimate:
    """(2), from the scores (N, K) and information (N, K, K) of N particles."""
    count, kinds = scores.shape
    unknown = Estimate(np.zeros(kinds), np.full(kinds, np.inf), count)
    if count < FEWEST:
        return unknown
    total = information.sum(axis=0)
    total = total + RIDGE * np.diag(np.diag(total))
    try:
        inverse = np.linalg.inv(total)
    except np.linalg.LinAlgError:
        return unknown
    value = inverse @ scores.sum(axis=0)
    left = scores - information @ value
    variance = np.diag(inverse @ (left.T @ left) @ inverse) * count / (count - kinds)
    if not (np.isfinite(value).all() and (variance > 0).all()):
        return unknown
    return Estimate(value, np.sqrt(variance), count)
