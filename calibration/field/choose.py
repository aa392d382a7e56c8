"""Which terms the field model has, and how many modes: those with which left-out particles are measured best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from calibration.field.regression import Problem, Residuals, Sums, residuals
from calibration.field.samples import Samples
from calibration.field.terms import Design, Terms

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]

FOLDS = 8
"""Groups of particles that are left out in turn."""
RIDGES = (0.001, 0.01, 0.03, 0.1, 0.3)
"""Weights to choose from, half a decade apart: the score is flat around its minimum."""
DEGREES = (1, 2, 3)
"""Degrees of the polynomials of the place that are tried: tilt, curvature, and coma that grows with the cube."""
BRIGHTNESS_DEGREES = (1, 2)
"""The same of the logarithm of the brightness."""
PARTICLES_A_TERM = 3.0
"""Particles that a term needs before it is tried: with fewer the left-out ones only tell of chance."""
BETTER_SIGMAS = 1.0
"""Standard errors of the mean difference by which more terms must predict left-out particles better (the rule of
one standard error, Breiman et al. 1984)."""
BETTER_PART = 0.02
"""The same as a part of the score: less is not worth a larger model."""
RANKS = (1, 2, 3, 4, 6)
"""Numbers of modes that are tried beside as many as there are terms."""
CLIPPED = 3.0
"""Errors are clipped at so many typical ones at their depth, so that a few odd images do not decide."""
FAINTEST = 0.02
"""Size of an image over that of the brightest, below which the power at its depth counts no more."""
DEPTHS = 12
"""Bins of depth, each with its typical error."""
LEAST_BRIGHTNESS_SD = 0.05
"""Scatter of ln(brightness) below which particles are alike, and brightness is no term."""


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The terms and the rank that predict best, the ridge, and the score of all that were tried.

    `scores` are (what was tried, mean squared error of left-out particles over that with the mean image alone).
    """

    design: Design
    rank: int
    ridge: float
    scores: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Truncation:
    """The parts of splines beside the mean one, (T - 1, J, R), as a few modes with weights.

    What is left out counts relative to the mean image's power at each depth.
    """

    modes: FloatArray
    mixing: FloatArray

    @classmethod
    def of(cls, splines: FloatArray, rank: int) -> Truncation:
        """The `rank` modes (M, J, R) and their weights (M, T - 1) on the terms that leave least (Eckart &
        Young)."""
        if len(splines) == 1:
            return cls(np.zeros((0, *splines.shape[1:])), np.zeros((0, 0)))
        size = np.sqrt((splines[0] ** 2).sum(axis=1))[:, None]
        size = np.maximum(size, FAINTEST * size.max())
        rest = (splines[1:] / size).reshape(len(splines) - 1, -1)
        left, values, right = np.linalg.svd(rest, full_matrices=False)
        many = min(rank, len(values))
        modes = (values[:many, None] * right[:many]).reshape(many, *splines.shape[1:]) * size
        return cls(modes, left[:, :many].T.copy())

    def splines(self, mean: FloatArray) -> FloatArray:
        """The splines (T, J, R) again."""
        return np.concatenate([mean[None], np.einsum("mt,mjr->tjr", self.mixing, self.modes)])


def folds_of(u: FloatArray, v: FloatArray, count: int = FOLDS) -> IndexArray:
    """Fold (N,) of each particle, neighbours in different ones."""
    strips = max(1, round(np.sqrt(len(u) / count)))
    fold = np.zeros(len(u), np.intp)
    place = 0
    for strip in np.array_split(np.argsort(u), strips):
        for index in strip[np.argsort(v[strip])]:
            fold[index] = place % min(count, len(u))
            place += 1
    return fold


def left_out(
    samples: Samples, sums: Sums, terms: FloatArray, ridge: float, rank: int | None, fold: IndexArray
) -> Residuals:
    """What the splines through the other folds leave of each particle's images, all (N, K)."""
    count, planes = samples.traces.depth_um.shape
    change, information = np.zeros((2, count, planes, 4))
    with threadpool_limits(2):
        whole = Problem.of(sums, terms, np.arange(count))
        for own in range(int(fold.max()) + 1):
            mine = np.flatnonzero(fold == own)
            splines = (whole - Problem.of(sums, terms, mine)).solve(ridge)
            if rank is not None:
                splines = Truncation.of(splines, rank).splines(splines[0])
            some = residuals(samples, splines, terms, mine)
            change[mine], information[mine] = some.change, some.information
    return Residuals(change, information)


class Judge:
    """Scores of left-out particles, relative to the errors with the mean image alone at the same depth."""

    def __init__(self, samples: Samples, alone: Residuals) -> None:
        traces = samples.traces
        self._seen = traces.seen
        depth = traces.depth_um
        low, high = depth[traces.seen].min(), depth[traces.seen].max()
        self._bin = np.clip(((depth - low) / max(high - low, 1e-9) * DEPTHS).astype(int), 0, DEPTHS - 1)
        self._typical = np.ones((DEPTHS, 3))
        for place in range(DEPTHS):
            here = traces.seen & (self._bin == place)
            if here.any():
                self._typical[place] = np.median(np.abs(alone.change[here][:, 1:]), axis=0)
        self._typical = np.maximum(self._typical, 1e-9)

    def of(self, found: Residuals) -> FloatArray:
        """Score (N,) of each particle: mean of its clipped squared errors in x, y, z over the typical ones."""
        error = np.minimum(np.abs(found.change[..., 1:]) / self._typical[self._bin], CLIPPED)
        squares = (error**2).mean(axis=2) * self._seen
        score: FloatArray = squares.sum(axis=1) / np.maximum(self._seen.sum(axis=1), 1)
        return score


def _better(new: FloatArray, old: FloatArray) -> bool:
    gain = old - new
    sure = float(gain.mean()) > BETTER_SIGMAS * float(gain.std(ddof=1)) / np.sqrt(len(gain))
    return sure and float(gain.mean()) > BETTER_PART * float(old.mean())


def choose(samples: Samples, sums: Sums) -> Choice:
    """Try more and more terms, as long as left-out particles are measured better; then fewer modes."""
    traces = samples.traces
    b = np.log(traces.brightness)
    fold = folds_of(traces.u, traces.v)
    alone = left_out(samples, sums, np.ones((len(b), 1)), 0.0, None, fold)
    judge = Judge(samples, alone)
    best, ridge, score = Design(), RIDGES[2], judge.of(alone)
    norm = float(score.mean())
    scores = [(_name(best), 1.0)]

    def attempt(
        design: Design, score: FloatArray, best: Design, ridge: float
    ) -> tuple[FloatArray, Design, float]:
        if design.count * PARTICLES_A_TERM > len(b):
            return score, best, ridge
        terms = Terms.of(design, traces.u, traces.v, b).at(traces.u, traces.v, b)
        tried = [judge.of(left_out(samples, sums, terms, value, None, fold)) for value in RIDGES]
        place = int(np.argmin([one.mean() for one in tried]))
        scores.append((_name(design), float(tried[place].mean()) / norm))
        return (tried[place], design, RIDGES[place]) if _better(tried[place], score) else (score, best, ridge)

    for degree in DEGREES:
        score, best, ridge = attempt(Design(degree), score, best, ridge)
    if float(b.std()) > LEAST_BRIGHTNESS_SD:
        for degree in BRIGHTNESS_DEGREES:
            score, best, ridge = attempt(Design(best.degree, degree), score, best, ridge)
    rank = best.count - 1
    if rank > 1:
        terms = Terms.of(best, traces.u, traces.v, b).at(traces.u, traces.v, b)
        for fewer in (many for many in RANKS if many < rank):
            found = judge.of(left_out(samples, sums, terms, ridge, fewer, fold))
            scores.append((f"{_name(best)}, {fewer} modes", float(found.mean()) / norm))
            if not _better(score, found) and found.mean() < (1 + BETTER_PART) * score.mean():
                rank = fewer
                break
    return Choice(best, rank, ridge, tuple(scores))


def _name(design: Design) -> str:
    parts = [f"place to the power of {design.degree}"] if design.degree else []
    parts += [f"brightness to the power of {design.brightness_degree}"] if design.brightness_degree else []
    return ", ".join(parts) or "one image for the whole field"
