"""The focal surface from particles on a level slide: constant, tilted or curved, whichever predicts left-out ones
best."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import f as f_distribution
from scipy.stats import median_abs_deviation

from engines.refine.field import SURFACE_DEGREE, monomials, terms_of

FloatArray = npt.NDArray[np.float64]

FEWEST = (1, 8, 10)
"""Fewest particles for a constant, a plane and a curved surface: its six numbers, and four particles to judge them.
With 10 of 60 simulated particles a surface curved by 6 % of the depth range is found in three of four cases and its
error is 1.2 um in the middle instead of 6.7; with 12, 0.8 um. A plane where there is none was found in 1 of 40."""
REACH = 5.0
"""Robust standard deviations from the surface beyond which a particle does not lie on the slide."""
ROUNDS = 4
"""Rounds of leaving such particles out; two suffice."""
BETTER_SIGMAS = 2.0
"""Standard errors of the mean difference by which more terms must predict left-out particles better: a surface that
is applied for nothing adds its own error to every depth."""
CHANCE = 1e-3
"""Probability of an F test below which the scatter has not become as small by chance. It speaks for few particles
on a surface much more bent than they scatter, of which one at the edge makes the mean difference unsure: a curved
surface is missed by 1 in 80 samples of 11 particles, without it by 14; where there is none, no more are found."""


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """Coefficients (6,) of S on `monomials`, 0 in the middle, their covariance (6, 6), and the scatter about it,
    um.

    `unseen_um2` is the variance of what S may have beside, where the particles do not show it.
    """

    surface_um: FloatArray
    covariance: FloatArray
    scatter_um: float
    degree: int
    unseen_um2: float = 0.0

    def variance_at(self, u: FloatArray, v: FloatArray) -> FloatArray:
        """Variance of S (N,), um^2, at places (N,)."""
        terms = monomials(u, v, SURFACE_DEGREE)
        found: FloatArray = np.einsum("nt,ts,ns->n", terms, self.covariance, terms) + self.unseen_um2
        return found

    def without_tilt(self) -> Surface:
        """The same with the tilt counted as the slide's."""
        kept = np.array([0, 0, 0, 1, 1, 1])
        return replace(
            self, surface_um=self.surface_um * kept, covariance=self.covariance * np.outer(kept, kept)
        )


def choose_surface(u: FloatArray, v: FloatArray, z_um: FloatArray, *, tilted: bool = False) -> Surface:
    """Fit particles at u, v (N,) that are in focus at `z_um` (N,); on a `tilted` slide the tilt is the slide's."""
    found = _chosen(u, v, z_um)
    found = replace(found, unseen_um2=_unseen(u, v, z_um, max(found.degree, 1) if tilted else found.degree))
    return found.without_tilt() if tilted else found


def _unseen(u: FloatArray, v: FloatArray, z_um: FloatArray, degree: int) -> float:
    """Variance, um^2, by which the focal surface may differ from one of `degree`.

    It is the part of the scatter that a curved surface would explain; all of it where the particles are too few to
    tell a curved surface from particles that lie at different heights.
    """
    about = _fit(u, v, z_um, degree).scatter_um ** 2
    if len(u) < FEWEST[SURFACE_DEGREE]:
        return about
    return max(0.0, about - _fit(u, v, z_um, SURFACE_DEGREE).scatter_um ** 2)


def _chosen(u: FloatArray, v: FloatArray, z_um: FloatArray) -> Surface:
    best = _fit(u, v, z_um, 0)
    kept, left = _left_out(u, v, z_um, 0)
    for degree in range(1, SURFACE_DEGREE + 1):
        if len(u) < FEWEST[degree]:
            break
        now, rest = _left_out(u, v, z_um, degree)
        both = kept & now if (kept & now).sum() >= FEWEST[1] else now
        if not both.sum() > terms_of(degree):
            continue
        new = _fit(u, v, z_um, degree)
        gain = left[both] ** 2 - rest[both] ** 2
        sure = gain.mean() > BETTER_SIGMAS * gain.std(ddof=1) / np.sqrt(both.sum())
        if sure or (
            gain.mean() > 0 and now.sum() >= kept.sum() and _beyond_chance(best, new, int(now.sum()))
        ):
            best, kept, left = new, now, rest
    return best


def _beyond_chance(old: Surface, new: Surface, count: int) -> bool:
    """Whether the scatter of `count` particles is less than by chance about a surface of more terms (F test)."""
    fewer, more = terms_of(old.degree), terms_of(new.degree)
    squares = [surface.scatter_um**2 * (count - terms) for surface, terms in ((old, fewer), (new, more))]
    variance = max(squares[1] / (count - more), 1e-18)
    ratio = (squares[0] - squares[1]) / (more - fewer) / variance
    return bool(ratio > f_distribution.isf(CHANCE, more - fewer, count - more))


def _kept(design: FloatArray, z_um: FloatArray) -> npt.NDArray[np.bool_]:
    kept = np.ones(len(z_um), np.bool_)
    for _ in range(ROUNDS):
        away = z_um - design @ np.linalg.lstsq(design[kept], z_um[kept], rcond=None)[0]
        spread = float(median_abs_deviation(away[kept], scale="normal"))
        kept = np.abs(away) <= REACH * max(spread, 1e-9)
    return kept


def _fit(u: FloatArray, v: FloatArray, z_um: FloatArray, degree: int) -> Surface:
    design = monomials(u, v, degree)
    kept = _kept(design, z_um)
    found = np.linalg.lstsq(design[kept], z_um[kept], rcond=None)[0]
    away = z_um[kept] - design[kept] @ found
    variance = float((away**2).sum()) / max(int(kept.sum()) - design.shape[1], 1)
    surface, covariance = np.zeros(terms_of(SURFACE_DEGREE)), np.zeros((terms_of(SURFACE_DEGREE),) * 2)
    many = design.shape[1]
    surface[:many] = found
    covariance[:many, :many] = variance * np.linalg.pinv(design[kept].T @ design[kept])
    surface[0] = 0.0
    # the height of the slide is not part of S, so its error is not either
    covariance[0, :], covariance[:, 0] = 0.0, 0.0
    return Surface(surface, covariance, float(np.sqrt(variance)), degree)


def _left_out(
    u: FloatArray, v: FloatArray, z_um: FloatArray, degree: int
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Which particles (N,) lie on the surface, and how far each is (N,) from the surface through the others."""
    design = monomials(u, v, degree)
    kept = _kept(design, z_um)
    inner = design[kept]
    leverage = np.einsum("nt,ts,ns->n", design, np.linalg.pinv(inner.T @ inner), design)
    away = z_um - design @ np.linalg.lstsq(inner, z_um[kept], rcond=None)[0]
    return kept, away / np.maximum(1.0 - np.where(kept, leverage, 0.0), 1e-3)
